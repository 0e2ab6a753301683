"""The kit's own tests; a project has it as `vendor.sdk`."""

import importlib.util
import sys
import unittest
from pathlib import Path

FOLDER = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("sdk", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)])
sdk = importlib.util.module_from_spec(_spec)
sys.modules["sdk"] = sdk
_spec.loader.exec_module(sdk)

from sdk import Action, Done, Policy, Skill, allow, choice, get, integer, list_of, log, number, obj, optional, text  # noqa: E402
from sdk.outcome import InvalidParams, UnexpectedReply  # noqa: E402
from sdk.policy import Deny  # noqa: E402
from sdk.shapes import read  # noqa: E402
from sdk.testing import Conversation, decision  # noqa: E402


def wrong(shape, value):
    try:
        read(shape, value)
    except InvalidParams as failure:
        return [f"{v.pointer}: {v.message}" for v in failure.violations]
    return []


def skill_of(run):
    return Skill("s", "S", {"act": Action("Act", "", {}, obj({}), {"plainly": {}}, run)})


class TestKit(unittest.TestCase):
    def test_everything_that_is_wrong_with_a_value_is_said_at_once_and_where(self):
        shape = obj({"name": text(max_length=2), "ids": list_of(integer(minimum=1)), "kind": optional(choice(["a"]))})
        self.assertEqual(read(shape, {"name": "🦀🦀", "ids": [1]}), {"name": "🦀🦀", "ids": [1]})
        self.assertEqual(
            wrong(shape, {"name": "abc", "ids": [1, 0, "x", True], "a/b": 1, "kind": "b"}),
            [
                "/a~1b: is not known",
                "/name: must have at most 2 characters",
                "/ids/1: must be at least 1",
                "/ids/2: must be a whole number",
                "/ids/3: must be a whole number",
                "/kind: must be one of a",
            ],
        )
        self.assertEqual(wrong(shape, []), [": must be an object"])
        self.assertEqual(wrong(shape, {}), [": lacks `name`", ": lacks `ids`"])
        self.assertEqual(wrong(number(), float("nan")), [": must be a number"])

    def test_a_segment_stays_one_segment_and_half_a_character_is_none(self):
        url = get("https://x.example").path("a/../b?c#d~\ud800").url
        self.assertEqual(url[-1].value, "/a%2F..%2Fb%3Fc%23d~%3F")
        with self.assertRaises(InvalidParams):
            get("https://x.example").path("..")

    def test_a_function_runs_again_from_its_start_with_the_replies_that_it_had(self):
        def run(call, params):
            first = call.send(get("https://x.example/1")).json()
            second = call.send(get("https://x.example/2").query("after", first["id"])).json()
            return Done([first, second], "both")

        call = Conversation(skill_of(run), "act", {})
        self.assertEqual(call.request().line, "GET https://x.example/1")
        self.assertEqual(call.reply(200, {"id": 7}).request().line, "GET https://x.example/2?after=7")
        self.assertEqual(call.reply(200, {"id": 8}).finish().output, [{"id": 7}, {"id": 8}])

    def test_a_mistake_in_a_plugin_is_told_and_kept_in_the_trace(self):
        failure = Conversation(skill_of(lambda call, params: params["nothing"]), "act", {}).failure()
        self.assertIsInstance(failure, UnexpectedReply)
        self.assertIn("KeyError", str(failure))
        self.assertEqual(log.written[-1][0], "error")

    def test_a_policy_that_comes_to_grief_denies(self):
        def broken(request, settings):
            raise LookupError("nothing")

        self.assertIsInstance(decision(Policy("p", "P", {}, [{}], broken), {}), Deny)
        sound = Policy("p", "P", {}, [{}], lambda request, settings: allow())
        self.assertEqual(decision(sound, {"more": 1}), Deny("the policy p cannot be applied: /more is not known"))
        self.assertEqual(decision(sound, {}), allow())
