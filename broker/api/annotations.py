"""What outside classifiers say of alerts: taken with a token, shown to everyone."""

from typing import Annotated

from fastapi import APIRouter, FastAPI, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from broker.api.access import required
from broker.api.errors import ApiError
from broker.api.formats import json_response
from broker.errors import AlertError, ConfigError
from broker.ops.annotators import Intake
from broker.ops.tokens import ANNOTATE, Tokens

MOST = 1000

router = APIRouter(tags=["annotations"])


class Said(BaseModel):
    """What is said of one alert."""

    model_config = ConfigDict(extra="forbid")

    survey: str = Field(description="sim, ztf or lsst.", max_length=40, examples=["ztf"])
    diaSourceId: str = Field(description="The alert.", max_length=200)  # noqa: N815
    numbers: dict[str, float | None] = Field({}, description="Scores by camelCase names.")
    texts: dict[str, str | None] = Field({}, description="Words by camelCase names.")


class Many(BaseModel):
    """Annotations."""

    model_config = ConfigDict(extra="forbid")

    annotations: list[Said] = Field(description="Up to 1000.", min_length=1, max_length=MOST)


Token = Annotated[str, Header(description="`Bearer` and the token.", max_length=300)]


def add_annotations(app: FastAPI, tokens: Tokens, intake: Intake, *, prefix: str) -> None:
    """Add the call to an application; only those with a token for it can write."""
    app.state.annotators, app.state.intake = tokens, intake
    app.include_router(router, prefix=prefix)


@router.post("/annotations", status_code=201)
def annotate(request: Request, many: Many, authorization: Token = "") -> Response:
    """Keep what a classifier says of alerts, under its name, and publish it.

    All or nothing. Said again of the same alert, the later counts.
    """
    intake: Intake = request.app.state.intake
    name = required(request.app.state.annotators, authorization, ANNOTATE).name
    try:
        made = [
            intake.annotation(name, one.survey, one.diaSourceId, numbers=one.numbers,
                              texts=one.texts)
            for one in many.annotations
        ]  # fmt: skip
        intake.put(made)
    except ConfigError as error:
        raise ApiError(422, error.message) from error
    except AlertError as error:
        raise ApiError(404, error.message) from error
    answer = json_response({"annotator": name, "kept": len(made)})
    answer.status_code = 201
    return answer
