"""Cat Diffusion's page: parse arguments, build, launch. A Hugging Face Space starts here too."""

import sys

from studio.settings import parse_settings

if __name__ == "__main__":
    settings = parse_settings()  # before the slow imports, so that --help answers at once
    try:
        from studio.serve import serve

        serve(settings)
    except KeyboardInterrupt:  # in the first seconds
        sys.exit(130)
