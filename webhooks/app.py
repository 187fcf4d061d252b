"""All of the receiver's paths, as one ASGI application."""

from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.routing import Route

from webhooks.bodies import Bodies
from webhooks.deliveries import Deliveries
from webhooks.health import Health
from webhooks.hooks import Hooks
from webhooks.link import Link
from webhooks.measures import Measures
from webhooks.repositories import Repositories
from webhooks.wakes import Pokes, Wakes


@dataclass(slots=True, kw_only=True)
class Parts:
    """What the paths share."""

    repositories: Repositories = field(default_factory=Repositories)
    bodies: Bodies = field(default_factory=Bodies)
    deliveries: Deliveries = field(default_factory=Deliveries)
    measures: Measures = field(init=False)
    link: Link = field(init=False)

    def __post_init__(self) -> None:
        """The line to the controller counts what goes through it, and the metrics ask it."""
        self.measures = Measures(lambda: self.link.standings)
        self.link = Link(self.repositories, self.measures.woken)


def application(parts: Parts) -> Starlette:
    """Hooks, wake-ups, and health."""
    hooks = Hooks(
        repositories=parts.repositories,
        bodies=parts.bodies,
        deliveries=parts.deliveries,
        wake=parts.link.wake,
        deaf=lambda: parts.link.deaf,
        counted=parts.measures.delivered,
    )
    wakes = Wakes(repositories=parts.repositories, counted=parts.measures.waiting.inc)
    pokes = Pokes(repositories=parts.repositories, wake=parts.link.wake)
    made = Starlette(
        routes=[
            Route("/hooks/{path}", hooks),
            Route("/wake/{path}", wakes),
            Route("/poke/{path}", pokes),
            *Health(link=parts.link, measures=parts.measures).routes(),
        ]
    )
    made.router.redirect_slashes = False
    return made
