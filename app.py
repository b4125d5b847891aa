"""Cat Diffusion's page: parse arguments, build, launch. A Hugging Face Space starts here too."""

import os
import sys

from diffusion.cli.interrupt import INTERRUPTED, ctrl_c_ends_at_once

if __name__ == "__main__":
    with ctrl_c_ends_at_once():
        from studio.settings import parse_settings

        settings = parse_settings()  # before the slow imports, so that --help answers at once
        from studio.serve import serve
    try:
        serve(settings)
    except KeyboardInterrupt:  # before it serves
        sys.exit(INTERRUPTED)
    sys.stdout.flush()
    os._exit(0)  # all is saved; to take everything apart in order would need seconds
