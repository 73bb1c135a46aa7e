"""Serving and storing: blinded, clear refusals, nothing lost when killed, many raters at once."""

import http.client
import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from alignslm import tables
from alignslm.cli import app
from alignslm.listening.analysis import export, ratings_table
from alignslm.listening.server import PAGE, REQUEST_BYTES, Session, create_app
from alignslm.listening.storage import FinalRating, Rater, Rating, Ratings, StorageError
from alignslm.listening.study import build_study, read_study
from alignslm.serving import server_of
from tests.listening_world import STUDY, build
from tests.messages import names

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return build(tmp_path_factory.mktemp("listening") / "artifacts")


@pytest.fixture
def study(artifacts, tmp_path):
    build_study(STUDY, artifacts, tmp_path / "study")
    return tmp_path / "study"


def answer(rater, clip, score=3, submission=None, **other):
    made = {"rater": rater, "clip": clip, "score": score, "plays": 1, "seconds": 2.5}
    return {**made, "submission": submission or f"{rater}-{clip}-{score}", **other}


@contextmanager
def served(folder, **options):
    """The real server in a process of its own; the caller may kill it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "alignslm", "listen", "serve", str(folder), "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options
    )
    base, give_up = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while not answers(base):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < give_up, "the server does not answer"
            time.sleep(0.05)
        yield base, process
    finally:
        process.kill()
        process.wait()


def answers(base):
    try:
        return ask(f"{base}/health")[0] == 200
    except urllib.error.URLError:
        return False


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 (loopback)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 (loopback)
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_killed_server_loses_no_rating_and_raters_resume(study):
    ratings = Ratings(study / "ratings.sqlite")
    first, second = ratings.invite(2)
    ratings.close()
    with served(study) as (base, process):
        clips = {
            rater.token: [t["clip"] for t in ask(f"{base}/api/session/{rater.token}")[1]["trials"]]
            for rater in (first, second)
        }
        assert ask(f"{base}/api/ratings", answer(first.token, clips[first.token][0], 5))[0] == 200
        assert ask(f"{base}/api/ratings", answer(second.token, clips[second.token][0], 1))[0] == 200
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served(study) as (base, process):
        trials = ask(f"{base}/api/session/{first.token}")[1]["trials"]
        assert [trial["clip"] for trial in trials] == clips[first.token]
        assert [trial["score"] for trial in trials] == [5, None, None, None]
        # The page did not hear the answer and sends it again: one rating, not two.
        status, said = ask(f"{base}/api/ratings", answer(first.token, clips[first.token][0], 5))
        assert (status, said) == (200, {"stored": True, "new": False, "score": 5})
        assert ask(f"{base}/api/ratings", answer(first.token, clips[first.token][1], 2))[1]["new"]
        process.send_signal(signal.SIGKILL)
    ratings = Ratings(study / "ratings.sqlite")
    assert sorted(row.score for row in ratings.stored("rater-001")) == [2, 5]
    assert sorted(row.score for row in ratings.stored()) == [1, 2, 5]
    ratings.close()


def test_every_acknowledged_answer_survives_a_kill_in_the_middle_of_many(study):
    ratings = Ratings(study / "ratings.sqlite")
    raters = ratings.invite(4)
    ratings.close()
    acknowledged = []
    with served(study) as (base, process):
        own = {r.token: ask(f"{base}/api/session/{r.token}")[1]["trials"][0]["clip"] for r in raters}

        def press_until_it_dies(rater: Rater) -> None:
            for press in range(10_000):
                try:
                    ask(
                        f"{base}/api/ratings",
                        answer(rater.token, own[rater.token], 1 + press % 5, f"{rater.number}-{press}"),
                    )
                except (OSError, http.client.HTTPException):
                    return
                acknowledged.append(f"{rater.number}-{press}")
                if len(acknowledged) >= 60:
                    process.kill()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(press_until_it_dies, raters))
    with sqlite3.connect(study / "ratings.sqlite") as connection:
        stored = {row[0] for row in connection.execute("SELECT submission FROM ratings")}
    assert len(acknowledged) >= 60
    assert set(acknowledged) <= stored
    assert len(stored - set(acknowledged)) <= 4  # on disk, but the server died before it could say so


def test_two_hundred_ratings_of_twenty_raters_at_once_are_all_there(artifacts, tmp_path):
    build_study(STUDY.model_copy(update={"prompts": 5, "trials_per_prompt": 2}), artifacts, tmp_path / "study")
    ratings = Ratings(tmp_path / "study" / "ratings.sqlite")
    raters = ratings.invite(20)
    ratings.close()
    with served(tmp_path / "study") as (base, _):

        def rate_all(rater: Rater) -> list[tuple[str, str, int]]:
            given = []
            for place, trial in enumerate(ask(f"{base}/api/session/{rater.token}")[1]["trials"]):
                score = 1 + (rater.number + place) % 5
                body = answer(rater.token, trial["clip"], score)
                for _ in range(2):  # an impatient network sends everything twice
                    assert ask(f"{base}/api/ratings", body)[0] == 200
                given.append((rater.rater_id, trial["clip"], score))
            return given

        with ThreadPoolExecutor(20) as pool:
            sent = sorted(row for given in pool.map(rate_all, raters) for row in given)
    assert len(sent) == 200
    ratings = Ratings(tmp_path / "study" / "ratings.sqlite")
    frame = export(tmp_path / "study", ratings)
    ratings.close()
    assert frame.select("rater_id", "clip_id", "score").rows() == sent
    assert set(frame["num_changes"]) == {0}
    per_system = frame.group_by("system").len()["len"]
    assert set(per_system) == {40}
    again = tables.read(tables.RATINGS, tmp_path / "study" / "ratings.parquet")
    assert again.equals(frame)


def raw(base, sent):
    """What the server answers to bytes, up to its end of the connection."""
    with socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(1 << 16):
            received += part
        return received


def test_requests_of_strangers_are_small_and_are_not_sent_back(study):
    Ratings(study / "ratings.sqlite").close()
    head = b"POST /api/ratings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with served(study) as (base, _):
        large = raw(base, head + b"Content-Length: 200000000\r\n\r\n" + b"x" * (REQUEST_BYTES + 1))
        chunked = raw(base, head + b"Transfer-Encoding: chunked\r\n\r\n8000\r\n" + b"x" * 0x8000 + b"\r\n")
        keys = b"{" + b",".join(b'"%0200d": 1' % key for key in range(50)) + b"}"
        wrong = raw(base, head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(keys) + keys)
        lost = raw(base, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert ask(f"{base}/health")[0] == 200
    assert [int(answered.split(b" ")[1]) for answered in (large, chunked, wrong, lost)] == [413, 413, 422, 404]
    assert max(map(len, (large, chunked, wrong, lost))) < 2000
    assert b"nosniff" in large


def is_closed(connection):
    """Whether the other side has closed."""
    connection.settimeout(0.1)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def answers_now(base):
    try:
        return answers(base)
    except OSError:
        return False


def test_held_connections_are_few_and_told_in_one_line(study, tmp_path):
    Ratings(study / "ratings.sqlite").close()
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (100, 100))
    log = tmp_path / "log"
    with log.open("w") as written, served(study, stderr=written, preexec_fn=few) as (base, process):
        port = int(base.rpartition(":")[2])
        held = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(140)]
        ended = [connection for connection in held if is_closed(connection)]
        assert process.poll() is None
        for connection in held:
            connection.close()
        while not answers_now(base):
            time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as gone:  # leaves in the middle of a request
            gone.sendall(b"POST /api/ratings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        while not answers_now(base):
            time.sleep(0.05)
    assert 140 - 34 <= len(ended) < 140
    (line,) = log.read_text().splitlines()
    names(line, "34", "connections")


def test_a_connection_that_sends_nothing_or_dribbles_is_closed(client, monkeypatch):
    monkeypatch.setattr("alignslm.serving.REQUEST_S", 0.5)
    server = server_of(client.app, host="127.0.0.1", port=0)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    head = b"POST /api/ratings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    for sent in (b"", b"GET /health HT", head + b"{"):
        assert raw(base, sent) == b""
    assert ask(f"{base}/health")[0] == 200
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(study):
    ratings = Ratings(study / "ratings.sqlite")
    ratings.invite(3)
    with TestClient(create_app(Session(study, ratings)), raise_server_exceptions=False) as client:
        client.ratings, client.folder = ratings, study
        yield client
    ratings.close()


def own_clips(client, rater):
    return [trial["clip"] for trial in client.get(f"/api/session/{rater.token}").json()["trials"]]


def test_what_is_refused_is_told_and_not_stored(client):
    first, second, _ = client.ratings.raters()
    clip = own_clips(client, first)[0]
    foreign = next(clip for clip in own_clips(client, second) if clip not in own_clips(client, first))

    def refused(body):
        response = client.post("/api/ratings", json=body)
        assert list(response.json()) == ["error"]
        return response.status_code, response.json()["error"]

    good = answer(first.token, clip)
    for score in (0, 6, -1, 3.5, "3", None, True, 10**30):
        status, message = refused({**good, "score": score})
        assert status == 422
        names(message, "score")
    for changes, facts in (
        ({"rater": "nobody"}, (404, "link")),
        ({"clip": foreign}, (404, f"{foreign!r}", "Reload")),
        ({"clip": "x"}, (404, "'x'", "Reload")),
        ({"plays": -1}, (422, "plays", "0")),
        ({"system": "base"}, (422, "system")),
    ):
        status, message = refused({**good, **changes})
        assert status == facts[0]
        names(message, *facts[1:])
    status, message = refused({key: value for key, value in good.items() if key != "clip"})
    assert status == 422
    names(message, "clip", "required")
    response = client.post("/api/ratings", content=b"{", headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    names(response.json()["error"], "JSON")
    assert client.ratings.stored() == []
    assert client.post("/api/ratings", json=good).json() == {"stored": True, "new": True, "score": 3}
    status, message = refused({**good, "score": 4})
    assert status == 409
    names(message, f"{good['submission']!r}", "Reload")
    assert [row.score for row in client.ratings.stored()] == [3]


def test_strangers_and_wrong_addresses_get_json(client):
    for path in ("/r/nobody", "/api/session/nobody"):
        response = client.get(path)
        assert response.status_code == 404
        names(response.json()["error"], "link")
    assert client.get("/audio/..%2Fstudy.json.flac").status_code == 404
    assert client.get("/audio/nothing.flac").json() == {"error": "No such clip."}
    names(client.get("/").json()["error"], "/", "link")
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


def test_a_changed_mind_replaces_the_answer_and_is_counted(client):
    rater = client.ratings.raters()[0]
    clip = own_clips(client, rater)[0]
    for score, submission in ((2, "a"), (4, "b"), (2, "a")):  # the last is a late repetition of the first
        assert client.post("/api/ratings", json=answer(rater.token, clip, score, submission)).status_code == 200
    (stored,) = client.ratings.stored()
    assert (stored.score, stored.changes) == (4, 1)
    assert client.get(f"/api/session/{rater.token}").json()["trials"][0]["score"] == 4


def test_nothing_that_reaches_a_rater_names_a_system(client):
    study, clips = read_study(client.folder)
    rater = client.ratings.raters()[0]
    clip = own_clips(client, rater)[0]
    page = client.get(f"/r/{rater.token}")
    assert page.content == PAGE.read_bytes()  # the same for every study and rater: it cannot know
    responses = [
        client.get(f"/api/session/{rater.token}"),
        client.get(f"/audio/{clip}.flac"),
        client.post("/api/ratings", json=answer(rater.token, clip)),
        client.post("/api/ratings", json=answer(rater.token, clip, 9)),
    ]
    secret = {*study.choice.names, "resynth", *clips["continuation_id"], *study.prompts} - {"ground-truth"}
    for response in responses:
        headers = {name: value for name, value in response.headers.items() if name != "content-security-policy"}
        sent = response.content + str(headers).encode() + str(response.url).encode()
        assert not [name for name in secret if name.encode() in sent.lower()]
    session = responses[0].json()
    assert set(session) == {"title", "question", "labels", "trials"}
    assert {key for trial in session["trials"] for key in trial} == {"clip", "boundary_s", "score"}
    assert all(len(trial["clip"]) == 16 for trial in session["trials"])


def test_the_page_is_one_file_that_may_talk_to_its_server_only(client):
    response = client.get(f"/r/{client.ratings.raters()[0].token}")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "<script src" not in response.text
    assert '<link rel="icon" href="data:,">' in response.text


def test_sound_comes_in_ranges_so_that_phones_can_seek(client):
    clip = own_clips(client, client.ratings.raters()[0])[0]
    whole = client.get(f"/audio/{clip}.flac")
    assert (whole.status_code, whole.headers["content-type"]) == (200, "audio/flac")
    part = client.get(f"/audio/{clip}.flac", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])


def test_an_answer_is_flushed_to_disk_at_its_commit(tmp_path):
    ratings = Ratings(tmp_path / "r.sqlite")
    assert ratings._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ratings._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    (rater,) = ratings.invite(1)
    assert ratings.record(Rating("s", rater.rater_id, "c", 4, 1, 0.5))
    with sqlite3.connect(tmp_path / "r.sqlite") as other:  # seen from outside without the writer closing
        assert other.execute("SELECT score FROM ratings").fetchall() == [(4,)]
    ratings.close()


def test_the_file_itself_refuses_what_must_not_be_stored(tmp_path):
    ratings = Ratings(tmp_path / "r.sqlite")
    (rater,) = ratings.invite(1)
    for wrong in (Rating("a", rater.rater_id, "c", 6, 1, 1.0), Rating("b", "nobody", "c", 3, 1, 1.0)):
        with pytest.raises(sqlite3.IntegrityError):
            ratings.record(wrong)
    assert ratings.stored() == []
    assert ratings.record(Rating("a", rater.rater_id, "c", 5, 1, 1.0))  # a failed one leaves no lock behind
    ratings.close()


def test_invitations_go_on_counting_and_links_are_secret(tmp_path):
    ratings = Ratings(tmp_path / "r.sqlite")
    everybody = ratings.invite(2) + ratings.invite(3)
    assert [rater.rater_id for rater in everybody] == [f"rater-00{number}" for number in range(1, 6)]
    assert len({rater.token for rater in everybody}) == 5
    assert min(len(rater.token) for rater in everybody) >= 12
    assert ratings.raters() == everybody
    assert ratings.rater(everybody[3].token) == everybody[3]
    assert ratings.rater("rater-001") is None
    ratings.close()
    with pytest.raises(StorageError) as raised:
        Ratings.existing(tmp_path / "no.sqlite")
    names(raised.value, "no.sqlite")


def test_ratings_of_another_study_are_refused(client):
    client.ratings.record(Rating("s", "rater-001", "elsewhere", 3, 1, 1.0))
    with pytest.raises(tables.TableError) as error:
        ratings_table(client.folder, client.ratings)
    names(error.value, "rater-001", "elsewhere", client.folder, "1", "ratings.sqlite")
    assert isinstance(client.ratings.stored()[0], FinalRating)


def told(command, *given):
    """What a command says that ends with a message and no traceback."""
    found = CliRunner().invoke(app, ["listen", command, *map(str, given)])
    assert found.exit_code == 1, found.output
    assert isinstance(found.exception, SystemExit)
    return " ".join(found.output.split())


@pytest.mark.parametrize("content", [b'{"kind": "other"}', b"[]", b"not JSON", b"\xff\xfe\x00", b""])
def test_a_foreign_study_is_told(study, content):
    Ratings(study / "ratings.sqlite").close()
    (study / "study.json").write_bytes(content)
    for command in ("links", "export", "analyze", "serve"):
        names(told(command, study), study / "study.json", "alignslm listen build")


def test_a_study_that_cannot_be_served_is_not_announced(study, tmp_path):
    said = told("serve", tmp_path)
    names(said, tmp_path, "study.json", "`alignslm listen build`")
    assert "http" not in said
    said = told("serve", study)  # nobody was invited
    names(said, "`alignslm listen invite`")
    assert "http" not in said


def write_junk(path, how):
    if how == "text":
        path.write_text("not a database, but long enough to be taken for one\n" * 40)
        return
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE raters (name TEXT)" if how == "foreign" else "CREATE TABLE notes (text TEXT)")
        if how == "cut":
            other.executemany("INSERT INTO notes VALUES (?)", [("x" * 900,)] * 20)
        other.commit()
    if how == "cut":
        path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("how", ["text", "foreign", "cut"])
def test_junk_for_ratings_is_told(study, how):
    write_junk(study / "ratings.sqlite", how)
    for command, *more in (("links",), ("export",), ("analyze",), ("serve",), ("invite", "--raters", 1)):
        names(told(command, study, *more), study / "ratings.sqlite")


def test_a_study_without_its_clips_is_not_served(study):
    Ratings(study / "ratings.sqlite").close()
    gone = min((study / "audio").iterdir())
    gone.unlink()
    names(told("serve", study), study, gone, "1")
