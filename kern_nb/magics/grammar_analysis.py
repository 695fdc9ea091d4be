"""The verbs of analysis, as data: compare, summarize, rerun, plot."""

from __future__ import annotations

from kern_nb.magics import verbs_analysis as verbs
from kern_nb.magics.kinds import PLOTS, one_of
from kern_nb.magics.syntax import STORE, Verb, arg, switch

_MODEL = "The model, for example openai:gpt-5.2"
_WHERE = arg(
    "--where",
    "NAME=VALUE",
    "Only sessions with that; may be given more than once.",
    action="append",
    default=[],
)

ANALYSIS_VERBS: tuple[Verb, ...] = (
    Verb(
        "compare",
        "Compare sessions or runs with the first of them, or groups of sessions paired by a key.",
        verbs.compare,
        example="%kern compare conversation_123 what-if",
        python='kern_nb.compare("conversation_123", "what-if")',
        arguments=(
            arg("ref", "REF", "Two or more sessions or runs, the baseline first.", "references", nargs="*"),
            arg("--by", "NAME", "Compare groups: what tells them apart, for example model; several as A,B.", "names"),
            arg("--key", "NAME", "What pairs the sessions of two groups; task_id where left out.", "names"),
            arg("--score", "NAME", "The score of groups; reward where left out."),
            arg("--groups", "A,B", "The groups, the baseline first; all where left out. '\"a,b\",c' is two."),
            _WHERE,
            STORE,
            arg("--to-store", "NAME", "The store of all but the first, where it is another.", "stores"),
            switch("--widget", "Of sessions and runs: to move about in."),
        ),
        more="Of sessions and runs the result has `.metrics`, `.turns`, `.tool_calls` and `.divergence`; of groups"
        " (`%kern compare --by model --key task_id`, in Python `kern_nb.compare_groups`) `.groups`, `.pairs` and"
        " `.metrics`. A name is a column, a key of the metadata or of the session's state. Both have `.plot()`. The"
        " widget is, in Python, `kern_nb.widgets.comparison.view(...)`.",
    ),
    Verb(
        "summarize",
        "Digest sessions or runs, or let a model summarize them.",
        verbs.summarize,
        example="%kern summarize conversation_123 --model openai:gpt-5.2",
        python='kern_nb.summarize("conversation_123", model="openai:gpt-5.2")',
        arguments=(
            arg("ref", "REF", "Sessions or runs.", "references", nargs="*"),
            _WHERE,
            arg("--model", "MODEL", f"{_MODEL}; without one, what can be computed."),
            STORE,
        ),
        more="A model's summary of a session is kept with it; the next time the model is told it and the runs since.",
    ),
    Verb(
        "rerun",
        "Branch before a run, run it again with an agent, and compare with what there was.",
        verbs.rerun,
        example='%kern rerun conversation_123/2 --agent clerk --message "Where is order 1044?" --as what-if',
        python='kern_nb.rerun("conversation_123/2", clerk, message="Where is order 1044?", name="what-if")',
        arguments=(
            arg("ref", "REF", "The run; or a session, of which every run is run again.", "references"),
            arg(
                "--agent",
                "AGENT",
                "An agent, team or workflow: its variable, id or name; one as recorded where left out.",
                "agents",
            ),
            arg("--message", "TEXT", "What is said instead of the run's input."),
            arg("--model", "MODEL", f"{_MODEL}; the agent's own where left out."),
            arg("--instructions", "TEXT", "Instructions instead of the agent's."),
            arg("--as", "NAME", "The branch's id and title; an id is made up where left out.", dest="name"),
            switch("--onward", "The runs after it, too."),
            STORE,
        ),
        more="The original stays as it is. The result has `.session`, `.runs` and `.comparison`.",
    ),
    Verb(
        "plot",
        "Draw tokens, cost and time over runs, the use of tools, or the tree of branches.",
        verbs.plot,
        example="%kern plot conversation_123 --kind tree",
        python='kern_nb.plot("conversation_123", kind="tree")',
        arguments=(
            arg("ref", "REF", "A session; the newest ones where left out.", "references", nargs="?"),
            arg(
                "--kind",
                "|".join(PLOTS),
                "What to draw; runs where left out.",
                "plots",
                type=one_of("kind of plot", PLOTS),
            ),
            STORE,
        ),
        more="The result has `.df`, the data, and `.save(path)`.",
    ),
)
