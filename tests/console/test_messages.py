"""Messages without secrets: passwords, tokens and signatures are replaced, the rest is kept."""

import pytest

from fer_ray.console.messages import holds_secret, redacted
from fer_ray.console.progress import say
from fer_ray.errors import DataError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql+pymysql://me:s/e@c:ret@db/s", "mysql+pymysql://me:***@db/s"),
        ("--storage=postgresql://:secret@db/s", "--storage=postgresql://:***@db/s"),
        ("postgresql://db/s?user=me&password=secret&ssl=1", "postgresql://db/s?user=me&password=***&ssl=1"),
        ("s3:/AKIA:se/c+ret@bucket/key", "s3:/AKIA:***@bucket/key"),
        ("https://secret@mlflow.example", "https://***@mlflow.example"),
        ("s3://b/k?access_key=AKIA&secret_key=secret&region=eu", "s3://b/k?access_key=***&secret_key=***&region=eu"),
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Credential=secret&X-Amz-Signature=secret&X-Amz-Security-Token=secret",
            "https://b.s3.amazonaws.com/k?X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Security-Token=***",
        ),
        ("https://x.blob.core.windows.net/c?sp=r&sig=secret%3D", "https://x.blob.core.windows.net/c?sp=r&sig=***"),
    ],
)
def test_urls_with_secrets(url: str, shown: str) -> None:
    assert redacted(f"{url} can't be reached") == f"{shown} can't be reached"
    assert holds_secret(url) and not holds_secret("postgresql://db/s")
    assert redacted(shown) == shown
    assert redacted("a password=secret AWS_SECRET_ACCESS_KEY=se") == "a password=*** AWS_SECRET_ACCESS_KEY=***"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///runs/study.db",
        "postgresql://user@host/name",
        "http://10.0.0.1:8265 and me@example.org",
        "s3://bucket/a folder/me:x@y.jpg",
        "wants RAY_AUTH_MODE=token and its token in ~/.ray/auth_token",
        "--set training.epochs=3",
    ],
)
def test_other_text_is_kept(text: str) -> None:
    assert redacted(text) == text
    assert not holds_secret(text)


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "a/secret+key",
        "AWS_SESSION_TOKEN": "a-session-token",
        "MLFLOW_TRACKING_PASSWORD": "mlflow's secret",
        "MYSQL_PWD": "mysql's secret",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PWD", "/home/me/photos")
    monkeypatch.setenv("A_TOKEN", "short")
    message = f"/home/me/photos, a short note: {', '.join(secrets.values())}"
    shown = "/home/me/photos, a short note: ***, ***, ***, ***"
    say(message)
    assert capsys.readouterr().err == shown + "\n"
    assert str(DataError(["first", message])) == f"first\n{shown}"
