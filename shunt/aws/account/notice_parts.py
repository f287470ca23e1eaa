"""The account's queue of spot notices: an EventBridge rule in front of an SQS queue.

One for all runs: a controller gives back what is about another run's node (`event_queue.py`).
EventBridge also knows of changes of state; EC2's listing says those as soon, so they are left out.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from shunt.aws.account.parts import State, found
from shunt.aws.api import AwsApi

NOTICES = "shunt-notices"
"""Name of the queue and of the rule."""
QUEUE_SETTINGS = {
    "MessageRetentionPeriod": 300,
    "VisibilityTimeout": 10,
    "SqsManagedSseEnabled": True,
}
"""Five minutes: a notice is two minutes long. Seconds after which a message whose reader died is
seen again. Encrypted."""
PATTERN = {
    "source": ["aws.ec2"],
    "detail-type": [
        "EC2 Spot Instance Interruption Warning",
        "EC2 Instance Rebalance Recommendation",
    ],
}
TOLD = "Spot notices for shunt"
_TARGET = "queue"


@dataclass(frozen=True, slots=True)
class NoticeDesk:
    """The two services of a queue of notices, in one region of one account."""

    sqs: AwsApi
    events: AwsApi
    account: str
    region: str
    directory: Path
    """`deployments/aws`."""

    @property
    def queue_arn(self) -> str:
        return f"arn:aws:sqs:{self.region}:{self.account}:{NOTICES}"

    def queue_url(self) -> str:
        """Empty where there is no queue."""
        reply = found(self.sqs, "get_queue_url", {"QueueName": NOTICES})
        return reply["QueueUrl"] if reply else ""

    def attributes(self) -> dict[str, str]:
        """As SQS takes them."""
        text = Template((self.directory / "notice-queue-policy.json").read_text())
        policy = json.loads(text.safe_substitute(region=self.region, account=self.account))
        told = {name: json.dumps(value) for name, value in QUEUE_SETTINGS.items()}
        return told | {"Policy": json.dumps(policy)}

    def queue_state(self) -> State:
        url = self.queue_url()
        if not url:
            return "absent"
        asked = {"QueueUrl": url, "AttributeNames": ["All"]}
        have = self.sqs.call("get_queue_attributes", asked).get("Attributes", {})
        wanted = self.attributes()
        same = all(_value(have.get(name)) == _value(text) for name, text in wanted.items())
        return "there" if same else "differs"

    def put_queue(self) -> None:
        url = self.queue_url()
        if url:
            self.sqs.call(
                "set_queue_attributes", {"QueueUrl": url, "Attributes": self.attributes()}
            )
        else:
            self.sqs.call("create_queue", {"QueueName": NOTICES, "Attributes": self.attributes()})

    def rule_state(self) -> State:
        """Of the rule, switched on, with the queue as its target."""
        rule = found(self.events, "describe_rule", {"Name": NOTICES})
        if rule is None:
            return "absent"
        reply = self.events.call("list_targets_by_rule", {"Rule": NOTICES})
        targets = {target["Arn"] for target in reply["Targets"]}
        same = rule["State"] == "ENABLED" and json.loads(rule["EventPattern"]) == PATTERN
        return "there" if same and self.queue_arn in targets else "differs"

    def put_rule(self) -> None:
        rule = {"Name": NOTICES, "EventPattern": json.dumps(PATTERN), "Description": TOLD}
        self.events.call("put_rule", {**rule, "State": "ENABLED"})
        target = {"Id": _TARGET, "Arn": self.queue_arn}
        self.events.call("put_targets", {"Rule": NOTICES, "Targets": [target]})

    def remove_rule(self) -> None:
        reply = found(self.events, "list_targets_by_rule", {"Rule": NOTICES})
        ids = [target["Id"] for target in reply["Targets"]] if reply else []
        if ids:
            self.events.call("remove_targets", {"Rule": NOTICES, "Ids": ids})
        found(self.events, "delete_rule", {"Name": NOTICES})

    def remove_queue(self) -> None:
        url = self.queue_url()
        if url:
            self.sqs.call("delete_queue", {"QueueUrl": url})


def notice_checks(desk: NoticeDesk) -> Iterator[tuple[str, Callable[[], str]]]:
    """For the doctor: what to look at, and what says what is wrong with it."""
    yield f"queue {NOTICES}", lambda: _wrong(desk.queue_state())
    yield f"rule {NOTICES}", lambda: _wrong(desk.rule_state())


def _wrong(state: State) -> str:
    return {
        "absent": "there is none; run shunt aws setup --notices",
        "differs": "it is not as setup makes it; run shunt aws setup --notices",
        "there": "",
    }[state]


def _value(text: str | None) -> Any:
    """SQS returns policies with other spaces, and booleans in lower case."""
    return None if text is None else json.loads(text)
