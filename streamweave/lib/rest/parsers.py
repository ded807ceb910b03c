"""Bodies of requests, refused here where nothing behind could hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class StrictJSONParser(JSONParser):
    """JSON whose texts are Unicode. Half a surrogate pair, which JSON can spell, fits no database and no answer."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            value = super().parse(stream, media_type, parser_context)
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ParseError("JSON parse error - a text holds half a surrogate pair.") from None
        except RecursionError:
            raise ParseError("JSON parse error - it is nested too deeply.") from None
        return value
