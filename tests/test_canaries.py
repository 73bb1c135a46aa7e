"""Canaries in every variable that may hold a secret: none is in what a run prints, writes or sends elsewhere."""

import json
import shutil
import sys

import pytest

from alignslm.redaction import HIDDEN, redact
from alignslm.storage import write_text
from alignslm.user_errors import print_error
from tests.chat_server import completion, failure, serving
from tests.micro import ROOT, WARM, edit, make_repository, run

KEY = "ODDLY_NAMED_JUDGE"
NAMES = (
    "OPENAI_API_KEY",
    "OPENAI_ADMIN_KEY",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "MISTRAL_API_KEY",
    "ANTHROPIC_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GITHUB_TOKEN",
    "WANDB_API_KEY",
    "POSTGRES_PASSWORD",
)
CANARIES = {name: f"canary-{number:02d}-5fA9xQ" for number, name in enumerate(NAMES)}
CANARIES |= {KEY: "canary-50-5fA9xQ", "DATABASE_URL": "postgres://me:canary-51-5fA9xQ@db.invalid/x"}
SECRETS = [value.split("@")[0].split(":")[-1] for value in CANARIES.values()]


def found_in(text: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode() in text]


def test_every_known_secret_and_what_looks_like_one_is_hidden(monkeypatch, tmp_path, capsys):
    for name, value in CANARIES.items():
        if name != KEY:  # nothing but a judge's config says that this is one
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("KEYBOARD_LAYOUT", "dvorak-2024")
    monkeypatch.setenv("ODD_KEY", 'odd"canary-9')
    known = [secret for secret in SECRETS if secret != CANARIES[KEY]]
    shown = redact(" ".join([*known, json.dumps('odd"canary-9'), "dvorak-2024"]))
    assert shown == " ".join([HIDDEN] * len(known)) + f' "{HIDDEN}" dvorak-2024'
    looking = {
        "https://me:pw@host/v1?x=1": f"https://{HIDDEN}@host/v1?x=1",
        "http://h/v1?api_key=abc&v=2": f"http://h/v1?api_key={HIDDEN}&v=2",
        "Bearer abcdefgh12345678": f"Bearer {HIDDEN}",
        "sk-proj-abcdefgh12345678": HIDDEN,
        "hf_abcdefghijklmnop12": HIDDEN,
        "AKIAABCDEFGHIJKLMNOP": HIDDEN,
    }
    assert {text: redact(text) for text in looking} == looking
    harmless = "the task-1 https://host/a@b mailto:me@host a key: value, disk-usage hf_home"
    assert redact(harmless) == harmless
    key = "AKIAABCDEFGHIJKLMNOP"
    sound = f"data:audio/flac;base64,ab/{key}+c=="  # bytes of audio that happen to spell a key
    assert redact(f'<audio src="{sound}"> {key}') == f'<audio src="{sound}"> {HIDDEN}'
    write_text(tmp_path / "card.md", f"a {SECRETS[0]} b")
    print_error(f"a {SECRETS[1]} b")
    assert ((tmp_path / "card.md").read_text(), capsys.readouterr().err) == (f"a {HIDDEN} b", f"a {HIDDEN} b\n")


@pytest.fixture
def server_judge(tmp_path):
    """A small experiment with a judge behind a server that quotes the key it was sent, wherever it can."""
    calls = []

    def answer(question, before, body):
        headers = server.headers[-1]
        calls.append(headers)
        quoted = f"You sent {headers['Authorization']}."
        if refusing:
            return failure(401, quoted)
        if len(calls) % 7 == 3:
            return failure(503, quoted)
        return completion(f"{quoted} \\boxed{{{1 + len(question) % 5}}}")

    refusing: list[bool] = []
    make_repository(tmp_path / "root")
    with serving(answer) as server:
        config = tmp_path / "root/experiments/judge/server.yaml"
        shutil.copy(ROOT / "experiments/judge/local-server.yaml", config)
        edit(config, {"base_url": server.url, "api_key_env": KEY, "min_auc": 0})  # it answers anything
        edit(tmp_path / "root/params.yaml", {"judge": "server"})
        yield tmp_path / "root", server, refusing


@pytest.mark.long
def test_no_canary_is_printed_written_or_sent(server_judge, tmp_path):
    root, server, refusing = server_judge
    variables = {**CANARIES, "ALIGNSLM_CACHE": str(tmp_path / "cache")}
    refusing.append(True)
    said = run(root, *WARM, "dvc", "repro", "scores@r1", fails=True, variables=variables)
    assert "401" in said
    assert HIDDEN in said
    refusing.clear()
    said += run(root, *WARM, "dvc", "repro", variables=variables)
    assert found_in(said.encode()) == []
    written = [file for file in tmp_path.rglob("*") if file.is_file() and not file.is_symlink()]
    assert any(HIDDEN.encode() in file.read_bytes() for file in written if "cache" in file.parts)
    assert {str(file): found_in(file.read_bytes()) for file in written if found_in(file.read_bytes())} == {}
    for headers, body in zip(server.headers, server.seen, strict=True):
        sent = "\n".join(f"{name}: {value}" for name, value in headers.items() if name != "Authorization")
        assert headers["Authorization"] == f"Bearer {CANARIES[KEY]}"
        assert found_in((sent + json.dumps(body)).encode()) == []


def test_a_traceback_hides_secrets_too(tmp_path):
    program = "from alignslm.user_errors import report_user_errors\nimport os\n"
    program += "with report_user_errors(): raise RuntimeError(os.environ['HF_TOKEN'])"
    said = run(tmp_path, sys.executable, "-c", program, fails=True, variables={**CANARIES, "PYTHONPATH": str(ROOT)})
    assert f"RuntimeError: {HIDDEN}" in said
    assert found_in(said.encode()) == []


@pytest.mark.parametrize("password", ["hunter22", "x" * 70])
def test_a_password_in_a_url_is_refused_and_not_shown(tmp_path, password):
    for name in ("experiments", "params.yaml", "dvc.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    edit(tmp_path / "experiments/judge/local-server.yaml", {"base_url": f"http://me:{password}@127.0.0.1:1/v1"})
    edit(tmp_path / "params.yaml", {"judge": "local-server"})
    said = run(tmp_path, sys.executable, "-m", "alignslm", "check", fails=True, variables={"PYTHONPATH": str(ROOT)})
    assert "local-server.yaml:3: base_url" in said
    assert "password" in said
    assert password not in said.replace("\n", "")
