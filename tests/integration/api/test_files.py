"""Uploads, listings, downloads, deletions."""

import gzip
import hashlib
import json
from pathlib import Path

import httpx
import pytest

from osora import Osora
from registry import jobs
from registry.context import Registry
from registry.jobs import NewResultFile
from registry.tenants import Principal
from tests.integration.api.conftest import MAX_UPLOAD_BYTES, error_of
from tests.support.jobs import CHAT_ROW, claim, new_adapter, submit

LINE = json.dumps(CHAT_ROW) + "\n"


def upload(client: httpx.Client, text: str = LINE, name: str = "tickets.jsonl", **fields: str) -> httpx.Response:
    return client.post("/files", data={"purpose": "fine-tune", **fields}, files={"file": (name, text)})


def test_a_file_and_back(client: httpx.Client) -> None:
    response = upload(client, LINE * 3)
    assert response.status_code == 200, response.text
    file = response.json()
    assert file["object"] == "file"
    assert (file["status"], file["purpose"], file["filename"]) == ("processed", "fine-tune", "tickets.jsonl")
    assert file["bytes"] == len(LINE) * 3
    assert file["osora"] | {"sha256": ""} == {"format": "chat", "rows": 3, "sha256": ""}
    assert client.get(f"/files/{file['id']}").json() == file
    content = client.get(f"/files/{file['id']}/content")
    assert content.text == LINE * 3
    assert "tickets.jsonl" in content.headers["content-disposition"]
    deleted = client.delete(f"/files/{file['id']}").json()
    assert deleted == {"id": file["id"], "object": "file", "deleted": True}
    error_of(client.get(f"/files/{file['id']}"), 404)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_file_that_expires_through_the_sdk(url: str, api_key: str, tmp_path: Path) -> None:
    path = tmp_path / "tickets.jsonl"
    path.write_text(LINE)
    with Osora(url, api_key) as sdk:
        file = sdk.files.upload(path, expires_after=7200)
        assert file["expires_at"] == file["created_at"] + 7200
        assert sdk.files.upload(path)["expires_at"] is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestUpload:
    def test_an_invalid_line(self, client: httpx.Client) -> None:
        bad = json.dumps({"messages": [{"role": "user", "content": 5}]}) + "\n"
        error = error_of(upload(client, LINE + bad), 400)
        assert (error["line"], error["field"], error["param"]) == (2, "messages[0].content", "file")
        assert error["code"] == "invalid_file"
        assert error["next_action"]
        assert client.get("/files").json()["data"] == []

    def test_every_bad_line_is_named(self, client: httpx.Client) -> None:
        bad = json.dumps({"messages": [{"role": "robot", "content": "x"}]}) + "\n"
        error = error_of(upload(client, (LINE + bad) * 150, name="rows.csv"), 400)
        assert error["message"] == 'line 2: `messages[0].role` is "robot" (149 more problems in the file)'
        assert (error["problem_count"], len(error["problems"])) == (150, 100)
        assert error["problems"][99] == {
            "line": 200,
            "field": "messages[0].role",
            "value": '"robot"',
            "problem": 'is "robot"',
            "next_action": "use one of system, user, assistant, tool",
        }

    def test_a_file_that_cannot_be_read_further(self, client: httpx.Client) -> None:
        data = gzip.compress((LINE * 3).encode())[:-8]
        error = error_of(client.post("/files", data={"purpose": "fine-tune"}, files={"file": ("a", data)}), 400)
        assert "is cut off" in error["message"]
        assert error["problem_count"] == 1

    def test_a_bomb(self, client: httpx.Client) -> None:
        data = gzip.compress(LINE.encode() * (2 * MAX_UPLOAD_BYTES // len(LINE)))
        error = error_of(client.post("/files", data={"purpose": "fine-tune"}, files={"file": ("a", data)}), 400)
        assert "once it is decompressed" in error["message"]

    @pytest.mark.parametrize(
        ("fields", "param"),
        [({"purpose": "assistants"}, "purpose"), ({"expires_after": "1"}, "expires_after")],
    )
    def test_fields(self, client: httpx.Client, fields: dict[str, str], param: str) -> None:
        assert error_of(upload(client, **fields), 400)["param"] == param

    def test_while_the_object_store_is_away(self, client: httpx.Client, registry: Registry) -> None:
        objects = registry.settings.data_dir / "objects"
        away = objects.rename(objects.with_name("away"))
        objects.touch()  # a folder that cannot be written to, for root as well
        response = upload(client)
        error = error_of(response, 503)
        assert (error["code"], response.headers["retry-after"]) == ("object_store_unavailable", "1")
        objects.unlink()
        away.rename(objects)
        assert client.get("/files").json()["data"] == []
        assert upload(client).status_code == 200

    def test_no_file(self, client: httpx.Client) -> None:
        # A field without a file name makes httpx send a form without a file.
        fields = {"purpose": (None, "fine-tune")}
        assert error_of(client.post("/files", files=fields), 400)["param"] == "file"
        fields["file"] = (None, "tickets.jsonl")
        assert "@" in error_of(client.post("/files", files=fields), 400)["next_action"]
        assert error_of(client.post("/files", json={}), 400)["next_action"]

    def test_two_files(self, client: httpx.Client) -> None:
        files = [("file", ("a", LINE)), ("file", ("b", LINE))]
        error_of(client.post("/files", data={"purpose": "fine-tune"}, files=files), 400)

    def test_a_file_over_the_limit(self, client: httpx.Client) -> None:
        # Within what the body may have: the registry counts the file itself.
        assert error_of(upload(client, LINE * (MAX_UPLOAD_BYTES // len(LINE) + 1)), 413)["param"] == "file"

    @pytest.mark.parametrize(
        ("name", "shown"),
        [("C:\\data\\t.jsonl", "t.jsonl"), ("../t.jsonl", "t.jsonl"), ("/", "upload.jsonl"), ("ä ö.jsonl",) * 2],
    )
    def test_names(self, client: httpx.Client, name: str, shown: str) -> None:
        file = upload(client, name=name).json()
        assert file["filename"] == shown
        assert client.get(f"/files/{file['id']}/content").status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_pages(client: httpx.Client) -> None:
    ids = [upload(client).json()["id"] for _ in range(3)]
    first = client.get("/files?limit=2").json()
    assert [file["id"] for file in first["data"]] == ids[:0:-1]
    assert (first["object"], first["has_more"]) == ("list", True)
    assert (first["first_id"], first["last_id"]) == (ids[2], ids[1])
    rest = client.get("/files", params={"limit": 2, "after": first["last_id"]}).json()
    assert [file["id"] for file in rest["data"]] == ids[:1]
    assert rest["has_more"] is False
    assert [file["id"] for file in client.get("/files?order=asc").json()["data"]] == ids
    empty = client.get("/files?purpose=fine-tune-results").json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_jobs_result_file(client: httpx.Client, registry: Registry, principal: Principal) -> None:
    curve = b"step,train_loss\n1,2.5\n2,2.25\n"
    attempt = claim(registry, submit(registry, principal))
    key = f"results/{attempt.job_id}/1/step_metrics.csv"
    registry.store.put(key, curve)
    result = NewResultFile("step_metrics.csv", key, hashlib.sha256(curve).hexdigest(), len(curve))
    with registry.transaction() as session:
        jobs.complete(
            session,
            attempt,
            step=2,
            trained_tokens=9,
            adapter=new_adapter(attempt),
            metrics={},
            result_files=[result],
        )
    (file_id,) = client.get(f"/jobs/{attempt.job_id}").json()["result_files"]
    (file,) = client.get("/files?purpose=fine-tune-results").json()["data"]
    assert file == client.get(f"/files/{file_id}").json()
    assert (file["id"], file["purpose"], file["status"]) == (file_id, "fine-tune-results", "processed")
    assert (file["filename"], file["bytes"]) == ("step_metrics.csv", len(curve))
    assert file_id in [listed["id"] for listed in client.get("/files").json()["data"]]
    content = client.get(f"/files/{file_id}/content")
    assert content.content == curve
    assert content.headers["content-type"] == "text/csv; charset=utf-8"
    assert content.headers["content-disposition"] == "attachment; filename*=utf-8''step_metrics.csv"
    body = {"model": "osora-tiny", "training_file": file_id}
    assert error_of(client.post("/jobs", json=body), 400)["param"] == "training_file"
    assert client.delete(f"/files/{file_id}").status_code == 200
    error_of(client.get(f"/files/{file_id}/content"), 404)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_file_in_use_stays(client: httpx.Client, registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    response = client.delete(f"/files/{job.training_file_id}")
    assert job.id in error_of(response, 409)["message"]
    assert response.headers["x-should-retry"] == "false"
