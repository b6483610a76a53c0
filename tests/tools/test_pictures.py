"""The pictures: tables as Grafana merges them, and a drawing of every board, of made-up answers."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from deploy.mixin.pictures import __main__ as command
from deploy.mixin.pictures.asking import Prometheus
from deploy.mixin.pictures.drawing import picture
from tests.harness import panels


class Answers(BaseHTTPRequestHandler):
    """A Prometheus that has two series for everything; classic buckets for what asks by `le`."""

    def do_GET(self):
        at = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(at.query).items()}
        self.server.queries.append(asked["query"])
        answer = {"query": self.instant, "query_range": self.over_time, "query_exemplars": self.exemplars}
        body = json.dumps({"data": answer[at.path.rsplit("/", 1)[1]](asked)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def labels(self, asked):
        kept = [name for name in ("agentos", "root", "agent", "model", "tool", "error_type") if name in asked["query"]]
        heatmap = asked["query"].startswith("sum by (le)")
        values = ("0.1", "0.5", "+Inf") if heatmap else ("one", "two")
        return [{"le": value} if heatmap else dict.fromkeys(kept, value) for value in values]

    def instant(self, asked):
        return {"result": [{"metric": one, "value": [0, str(n + 1)]} for n, one in enumerate(self.labels(asked))]}

    def over_time(self, asked):
        begin, end, step = (float(asked[name]) for name in ("start", "end", "step"))
        times = [begin + n * step for n in range(int((end - begin) // step) + 1)]
        return {
            "result": [
                {"metric": one, "values": [[at, str((n + 1) * self.server.height)] for at in times[2:]]}
                for n, one in enumerate(self.labels(asked))
            ]
        }

    def exemplars(self, asked):
        middle = (float(asked["start"]) + float(asked["end"])) / 2
        return [{"exemplars": [{"timestamp": middle, "value": "0.5"}, {"timestamp": middle + 1, "value": "0.4"}]}]

    def log_message(self, *_):
        pass


@pytest.fixture
def prometheus():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.queries, server.height = [], 1.0
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def url(server):
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.slow
def test_every_board_is_drawn(prometheus, tmp_path, capsys):
    assert command.main(["--prometheus", url(prometheus), "--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == set(panels.boards())
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(map(str, tmp_path.iterdir()))
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.width == 1440
            assert image.height > 800
            assert len(image.convert("RGB").getcolors(1 << 16)) > 50
        assert path.stat().st_size < 400_000
    assert not any("$" in query for query in prometheus.queries)


def test_the_same_data_makes_the_same_picture_and_other_data_another(prometheus):
    board = panels.boards()["agentos-slo"]
    source = Prometheus(url(prometheus), 600)
    shown = {panel["id"]: source.panel(panel, panels.variables(board)) for panel in panels.panels(board)}
    first = picture(board, shown, source.begin, source.end)
    assert picture(board, shown, source.begin, source.end) == first
    burn = next(panel for panel in panels.panels(board) if panel["title"] == "Error budget: burn rate")
    shown[burn["id"]].lines[0].values[-1] = 250.0
    assert picture(board, shown, source.begin, source.end) != first


def test_tables_are_merged_by_labels(prometheus):
    board = panels.boards()["agentos-cost"]
    agents = next(panel for panel in panels.panels(board) if panel["title"] == "Agents")
    values = panels.variables(board)
    rows = Prometheus(url(prometheus), 600).panel(agents, values).rows
    assert [row["Agent"] for row in rows] == ["two", "one"], "sorted by cost, largest first"
    assert rows[0] == {
        "AgentOS": "two",
        "Agent": "two",
        "LLM calls": 2.0,
        "Tokens": 2.0,
        "Cost a call": 2.0,
        "Cost": 2.0,
    }


def test_a_heatmap_gets_what_fell_into_each_bucket(prometheus):
    board = panels.boards()["agentos-agent"]
    cost = next(panel for panel in panels.panels(board) if panel["title"] == "Cost of a run")
    lines = Prometheus(url(prometheus), 600).panel(cost, panels.variables(board)).lines
    assert [line.name for line in lines] == ["0.1", "0.5", "+Inf"]
    assert [line.values[-1] for line in lines] == [1.0, 1.0, 1.0]
