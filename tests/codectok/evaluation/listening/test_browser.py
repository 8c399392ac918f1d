"""A listener takes the test in a headless Chromium, from the command to the exported ratings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import soundfile

from codectok import Codec
from codectok.evaluation.listening.page import listeners_page
from codectok.evaluation.listening.stored_test import load_test
from tests.helpers.audio import tone
from tests.helpers.listening_browser import Listener, listening

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = """
    --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required
"""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    """Options of a small test with a codec and a folder."""
    for folder in ("speech", "quiet"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            samples = tone(2, 24_000, 300 + 200 * number, seed=number)
            soundfile.write(tmp_path / folder / f"{number}.wav", samples * (1 if folder == "speech" else 0.5), 24_000)
    Codec.from_config("nano", seed=1).save_pretrained(tmp_path / "nano")
    systems = ["--codec", f"nano={tmp_path / 'nano'}", "--folder", f"quiet={tmp_path / 'quiet'}"]
    return ["--reference", tmp_path / "speech", *systems, "--scale", "both", "--max-seconds", 1.5]


@pytest.fixture
def browser_page(tmp_path: Path) -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            headless=True,
            args=ARGUMENTS.split(),
            viewport={"width": 1100, "height": 900},
        )
        context.set_default_timeout(20_000)
        yield context.pages[0]
        context.close()


@pytest.mark.slow
def test_session_from_command_to_parquet(arguments: list[object], browser_page: Any, tmp_path: Path) -> None:
    test, page, listener = tmp_path / "test", browser_page, Listener(browser_page)
    with listening(test, *arguments, "--port", 0) as server:
        page.goto(server.listeners)
        page.keyboard.type("Ann")
        page.keyboard.press("Enter")
        listener.wait()
        check_playing(page)
        assert page.is_disabled("#next")
        listener.grade(0, "speech_clarity", 4)
        listener.grade(0, "speech_clarity", 2)
        listener.grade(1, "background_clarity", 5)
        page.locator("#stimuli .stimulus").nth(2).locator("label:has(input[value='3'])").first.click()
        shown = listener.shown()
        listener.expected[shown["id"], shown["stimuli"][2], "speech_clarity"] = 3
        page.get_by_text("versions still to rate").wait_for()
        before = listener.shown()
        page.reload()
        listener.wait()
        assert listener.shown() == before
        assert page.locator("#stimuli input:checked").count() == 3
        port = server.port
        server.process.kill()
        server.process.wait()
        listener.grade_all(1)
        page.get_by_text("the server does not answer").wait_for()
        assert page.is_disabled("#next")
    with listening(test, "--port", port) as server:
        listener.next()  # the page sends its ratings again by itself
        listener.wait()
        listener.grade_all(2)
        listener.next()
        listener.wait()
        check_loop(page)
        listener.slide_all([100, 23, 61, 50 - 17])
        page.keyboard.press("?")
        listener.ready()
        page.screenshot(path=tmp_path / "trial.png", full_page=True)
        listener.next()
        listener.wait()
        listener.slide_all([0, 100, 50 + 1, 99])
        listener.next()
        page.get_by_text("Thank you").wait_for()
        page.goto(server.results)
        page.screenshot(path=tmp_path / "results.png", full_page=True)
        assert "4 of 4" in page.inner_text("body")
        output = server.stop()
    assert "results.parquet" in output
    assert not listener.errors
    stored = load_test(test)
    rows = pq.read_table(test / "results.parquet").to_pylist()
    found = {
        (row["trial"], stored.pages[row["trial"]].clip.stimuli[row["system"]], row["scale"]): row["value"]
        for row in rows
    }
    assert found == listener.expected
    assert len(found) == len(rows) == 2 * 4 * 3
    assert all(row["listener"] == "Ann" and row["complete"] for row in rows)
    assert any(row["seconds_listened"] > 0 for row in rows)


def check_playing(page: Any) -> None:
    """Versions play and switch by keyboard and mouse, and the position continues."""
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    starts = page.evaluate("() => ({...player.schedule})")
    for number in (2, 4, 1):
        page.keyboard.press(str(number))
        assert page.locator("#stimuli .choose[aria-pressed=true]").inner_text().startswith(f"Version {number}")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => player.chosen") == 1
    page.get_by_role("button", name="Listen to Version 3").click()
    assert page.evaluate("() => player.chosen") == 2
    state = page.evaluate(
        "() => ({schedule: player.schedule, sources: player.sources.length, sample: player.sample(),"
        " passed: (player.context.currentTime - player.schedule.when) * player.context.sampleRate})"
    )
    assert state["schedule"] == starts  # nothing was started again
    assert state["sources"] == 4
    assert state["sample"] == round(state["passed"]) % page.evaluate("() => player.length")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play", exact=True).wait_for()


def check_loop(page: Any) -> None:
    """A dragged region is looped, and Escape ends it; brackets set it at the playhead."""
    box = page.locator("#wave").bounding_box()
    y = box["y"] + box["height"] / 2
    page.keyboard.press("0")
    page.keyboard.press("Space")
    page.mouse.move(box["x"] + 0.5 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], y, steps=4)
    page.mouse.up()
    first, last = page.evaluate("() => player.region")
    length = page.evaluate("() => player.length")
    assert abs(first / length - 0.25) < 0.01
    assert abs(last / length - 0.5) < 0.01
    page.get_by_text("Loop 0.3").wait_for()
    positions = []
    for _ in range(12):
        page.wait_for_timeout(50)
        positions.append(page.evaluate("() => player.sample()"))
    assert all(first <= position < last for position in positions)
    assert any(later < earlier for earlier, later in pairwise(positions))
    page.keyboard.press("Escape")
    assert page.evaluate("() => player.region") is None
    page.keyboard.press("Space")
    page.evaluate("() => player.seek(24000)")
    page.keyboard.press("o")
    assert page.evaluate("() => player.region") == [0, 24_000]
    page.keyboard.press("Escape")


SWITCHED = """
async ([region, times]) => {
  const rate = 48000, n = 12000, seconds = 1;
  const context = new OfflineAudioContext(1, seconds * rate, rate), tested = new Player(context);
  // The value of a sample tells its position and its version.
  const make = sign => {
    const buffer = context.createBuffer(1, n, rate), samples = buffer.getChannelData(0);
    for (let i = 0; i < n; i++) samples[i] = sign * (i + 1) / 16384;
    return buffer;
  };
  tested.load([make(1), make(-1), make(0.5)]);
  if (region) tested.loop(region);
  tested.play(0);
  const switches = [];
  times.forEach(([time, version]) => context.suspend(time).then(() => {
    switches.push([Math.round(context.currentTime * rate), version]);
    tested.choose(version);
    context.resume();
  }));
  const rendered = await context.startRendering();
  return {samples: Array.from(rendered.getChannelData(0)), switches};
}
"""


def test_switching_keeps_position_to_the_sample(browser_page: Any) -> None:
    page = browser_page
    html = listeners_page("0")[0]
    page.route("http://127.0.0.1:1/", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto("http://127.0.0.1:1/")
    for region in (None, [3000, 9000]):
        result = page.evaluate(SWITCHED, [region, [[0.2, 1], [0.45, 2], [0.7, 0]]])
        check_switches(result["samples"], [(0, 0), *map(tuple, result["switches"])], region)


def check_switches(samples: list[float], switches: list[tuple[int, int]], region: list[int] | None) -> None:
    assert [version for _, version in switches] == [0, 1, 2, 0]
    first, last = region or [0, 12_000]
    factors, ramp, fade = [1.0, -1.0, 0.5], round(0.008 * 48_000) + 128, 240 if region else 0
    checked = 0
    for (start, version), (end, _) in pairwise([*switches, (len(samples), 0)]):
        for sample in range(start + (ramp if start else 0), end):
            position = sample % (last - first)
            if fade <= position < last - first - fade:
                expected = factors[version] * (first + position + 1) / 16_384
                assert abs(samples[sample] - expected) < 1e-6, (sample, version)
                checked += 1
    assert checked > 40_000
    if region:
        assert max(abs(later - earlier) for earlier, later in pairwise(samples)) < 0.02  # no clicks
