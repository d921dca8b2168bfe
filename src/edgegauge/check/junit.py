"""A gate's report as JUnit XML, which CI systems show as tests.

A suite for each device and one for what has no device, a test case for each check: a failure where
it fails, skipped where nobody can tell (or a failure, where the gate breaks on that). The layout is
what Jenkins, GitLab and GitHub actions read in common: `testsuites > testsuite > testcase`, with
counts that agree. Names come from outside: characters that XML has not got are replaced.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from edgegauge.check.outcome import Check, Report

_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 calls no character, even when it is escaped."""


def junit(report: Report) -> str:
    """The XML document."""
    root = ElementTree.Element("testsuites", name=_text(report.title))
    suites: dict[str, ElementTree.Element] = {}
    for cell in report.cells:
        name = cell.device or "any device"
        if name not in suites:
            suites[name] = ElementTree.SubElement(root, "testsuite", name=_text(name))
        for check in cell.checks:
            suites[name].append(_case(name, cell.subject, check, report.cannot_tell))
    for element in (root, *suites.values()):
        for key, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
            element.set(key, str(sum(1 for _ in element.iter(tag))))
    for suite in suites.values():
        suite.set("skipped", str(sum(1 for _ in suite.iter("skipped"))))
    ElementTree.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


# Readers take what is before the last dot of a class's name for its package.
def _case(suite: str, subject: str, check: Check, cannot_tell: str) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", classname=_text(f"{suite}.{subject.replace('.', '_')}"), name=_text(check.limit)
    )
    if check.outcome == "pass":
        return case
    skipped = check.outcome == "cannot tell" and cannot_tell == "passes"
    found = ElementTree.SubElement(
        case, "skipped" if skipped else "failure", type=check.outcome, message=_text(check.says)
    )
    found.text = _text(check.says)
    return case


def _text(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
