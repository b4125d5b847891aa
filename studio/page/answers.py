"""Every mistake is answered with a sentence, whoever made it: a visitor, a script or this program.

Gradio tells a visitor about ``gr.Error`` only, and of anything else nothing at all.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.components.api_component import Api

from ..drawing.worker import Busy
from ..safety.client import CLIENT_KEY, HOUSE, current_client
from ..safety.log import note_error
from ..safety.mailboxes import Mailboxes

UNREADABLE = "This request contains something that cannot be read."
UNREAD = "Nobody collected what was drawn, so it ended. Please try again."
BROKEN = "Something went wrong here. Please try again; the server's log says what it was."


class AnsweringBlocks(gr.Blocks):
    """Blocks that turns whatever is raised while it handles a request into a sentence."""

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], *args: Any, **kwargs: Any
    ) -> Any:
        # gradio_client fills in what a call leaves out; with curl that is left to us
        left_out = [
            block.value for block in block_fn.inputs[len(inputs) :] if isinstance(block, Api)
        ]
        try:
            return await super().preprocess_data(block_fn, [*inputs, *left_out], *args, **kwargs)
        except gr.Error as error:
            error.print_exception = False  # the visitor's mistake, nothing for the log
            raise
        except Exception:  # Gradio, pydantic and Pillow raise all sorts of it
            raise gr.Error(UNREADABLE, print_exception=False) from None

    async def process_api(
        self,
        *args: Any,
        request: Any = None,
        iterator: Any = None,
        session_hash: str | None = None,
        event_id: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Once for each value of a handler; of those to come it makes no more than are read."""
        asked_by = getattr(request, "request", None)
        current_client.set(asked_by.scope.get(CLIENT_KEY, HOUSE) if asked_by else HOUSE)
        if iterator is not None and event_id is not None and session_hash is not None:
            mailboxes = Mailboxes(self)
            if not await mailboxes.is_read(session_hash):
                await mailboxes.close(session_hash)
                raise gr.Error(UNREAD, print_exception=False)
        try:
            return await super().process_api(  # type: ignore[misc]  # args end before these four
                *args,
                request=request,
                iterator=iterator,
                session_hash=session_hash,
                event_id=event_id,
                **kwargs,
            )
        except gr.Error:
            raise
        except gr.exceptions.ComponentProcessingError as error:  # our output, so our mistake
            raise _broken(error) from None
        except (ValueError, Busy) as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Exception as error:
            raise _broken(error) from None


def _broken(error: Exception) -> gr.Error:
    """What is our own mistake; the log says more, but not as often as strangers please."""
    note_error(error)
    return gr.Error(BROKEN, print_exception=False)
