"""JSON services that a table describes: products as they are documented, refusals, nonsense and secrets."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.servers import Answer, Seen, Server, answered, serving
from tests.verifiers.products import KEY, PRODUCTS, decoded, embedded, parts
from tests.verifiers.remotes import Asked, connect
from toolkit.errors import InputError, SixpixelsError, UnavailableError
from toolkit.pixels import to_unit
from toolkit.verifiers.remote.calls import TransientError
from toolkit.verifiers.remote.config import read_remote
from toolkit.verifiers.remote.pointer import MISSING, find, parse_pointer, put
from toolkit.verifiers.scores import distances, is_same

SIDE = 16
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "remote"
SECRET = "s3cret-k3y-of-mine"
REQUEST = 'path = "/compare"\nprobe = "/a"\nreference = "/b"'
ANSWER = 'similarity = "/found/0/score"\nrange = [0, 10]\nthreshold = 7'


def describe(
    folder: Path, url: str, *, request: str = REQUEST, answer: str = ANSWER, more: str = "", limits: str = ""
) -> Path:
    path = folder / "remote.toml"
    path.write_text(
        f'schema = 1\nkind = "json"\nname = "far"\nurl = "{url}"\n[request]\n{request}\n[answer]\n{answer}\n'
        f"[input]\nwidth = {SIDE}\nheight = {SIDE}\n"
        f"[limits]\ncalls_per_second = 1000\nmax_calls = 1000\nretries = 1\n{limits}\n{more}\n"
    )
    return path


def flat(*levels: int, side: int = SIDE) -> Any:
    return np.stack([np.full((side, side, 3), level, np.uint8) for level in levels])


@pytest.fixture
def far() -> Iterator[Server]:
    with serving(lambda _: answered({"found": [{"score": 9}]})) as server:
        yield server


def example(folder: Path, name: str, url: str) -> Path:
    text = (EXAMPLES / f"{name}.toml").read_text()
    path = folder / f"{name}.toml"
    path.write_text(re.sub('url = "http://localhost:[0-9]+"', f'url = "{url}"', text))
    assert url in path.read_text()
    return path


def test_every_example_belongs_to_a_product() -> None:
    assert {path.stem for path in EXAMPLES.glob("*")} == set(PRODUCTS)


@pytest.mark.parametrize("name", ["deepface", "compreface"])
def test_products_that_compare_give_their_own_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COMPREFACE_KEY", KEY)
    with serving(PRODUCTS[name]) as server:
        far = connect(example(tmp_path, name, server.url))
        probes = flat(100, 100, 100, 0, 100, side=224)
        found = far.compare(probes, flat(100, 110, 200, 100, 0, side=224))
        assert far.caller.calls == len(server.seen) == 5, "a face that is not found is not asked for again"
    decision = far.service.remote.decision
    expected = np.array([0, 10, 100]) / 255 * (2 if name == "deepface" else 1)
    np.testing.assert_allclose(found[:3], expected, atol=1e-9)
    assert is_same(decision, found[:3]).tolist() == [True, True, False]
    assert np.isnan(found[3:]).all()
    assert decision.metric == "service"


def test_insightface_gives_embeddings_one_by_one(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    with serving(PRODUCTS["insightface-rest"]) as server:
        far = connect(example(tmp_path, "insightface-rest", server.url))
        assert (far.service.answers, far.service.most) == ("embedding", 1)
        found = far.service.embeddings(to_unit(images[:1]))
        nobody = far.service.embeddings(to_unit(flat(0, side=112)))
        with pytest.raises(InputError, match=r"takes \(1, 112, 112, 3\)"):
            far.service.embeddings(to_unit(images))
    own = np.array([embedded(images[0])])
    np.testing.assert_allclose(found, own / np.linalg.norm(own), atol=1e-6)
    assert nobody.shape == (1, 512)
    assert np.isnan(nobody).all(), "no face"
    assert np.isnan(distances("cosine", nobody, found)).all()


def test_the_key_is_read_from_the_environment_and_stays_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(PRODUCTS["compreface"]) as server:
        path = example(tmp_path, "compreface", server.url)
        monkeypatch.delenv("COMPREFACE_KEY", raising=False)
        with pytest.raises(UnavailableError, match=r"headers\.x-api-key names COMPREFACE_KEY, which is not set"):
            connect(path)
        monkeypatch.setenv("COMPREFACE_KEY", "no\nkey")
        with pytest.raises(InputError, match="printable"):
            connect(path)
        assert not server.seen
        monkeypatch.setenv("COMPREFACE_KEY", SECRET)
        with pytest.raises(UnavailableError, match=r"denies access.*\[hidden\]") as caught:
            connect(path).compare(flat(1, side=224), flat(1, side=224))
    assert SECRET[:9] not in str(caught.value)


BODIES = {
    "base64": f"{REQUEST}\nconstants = {{ a2 = [1, true, 'x'], secret = {{ env = 'FAR_KEY' }} }}",
    "data-uri": f'{REQUEST}\nimage = "data-uri"\nconstants = {{ secret = {{ env = "FAR_KEY", prefix = "key " }} }}',
    "multipart": 'path = "/compare"\nbody = "multipart"\nprobe = "a"\nreference = "b"\n'
    'constants = { secret = { env = "FAR_KEY" }, text = "é" }',
}


@pytest.mark.parametrize("form", BODIES)
def test_images_arrive_without_loss_and_constants_with_them(
    tmp_path: Path, far: Server, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("FAR_KEY", SECRET)
    probe, reference = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    assert connect(describe(tmp_path, far.url, request=BODIES[form])).compare([probe], [reference]) == [1]
    (seen,) = far.seen
    document = parts(seen) if form == "multipart" else seen.document
    for key, image in (("a", probe), ("b", reference)):
        content = document.pop(key)
        if form == "data-uri":
            content = content.removeprefix("data:image/png;base64,")
        np.testing.assert_array_equal(decoded(content if form == "multipart" else base64.b64decode(content)), image)
    rest: dict[str, Any] = {
        "base64": {"a2": [1, True, "x"], "secret": SECRET},
        "data-uri": {"secret": f"key {SECRET}"},
        "multipart": {"secret": SECRET.encode(), "text": "é".encode()},
    }
    assert document == rest[form]
    far.faults = [answered({"error": f"you sent {SECRET}"}, 400)]
    with pytest.raises(InputError, match=r"rejects the request .*\[hidden\]") as caught:
        connect(tmp_path / "remote.toml").compare([probe], [reference])
    assert SECRET[:9] not in str(caught.value)


def test_a_body_can_be_the_image_itself_and_the_method_put(tmp_path: Path, far: Server) -> None:
    request = 'path = "/e"\nbody = "image"\nmethod = "PUT"\nheaders = { X-Tenant = "a b" }'
    more = '[output]\nsize = 2\nnormalize = false\n[decision]\nmetric = "euclidean"\nthreshold = 1\nmaximum = 9'
    far.faults = [answered([[3, 0.5]])]
    path = describe(tmp_path, far.url, request=request, answer='embedding = "/0"', more=more)
    crop = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(connect(path).service.embeddings(to_unit(crop)), [[3, 0.5]])
    (seen,) = far.seen
    assert (seen.method, seen.headers["Content-Type"], seen.headers["X-Tenant"]) == ("PUT", "image/png", "a b")
    np.testing.assert_array_equal(decoded(seen.document), crop[0])


def test_true_and_false_are_a_decision(tmp_path: Path, far: Server) -> None:
    asked = connect(describe(tmp_path, far.url, answer='decision = "/same"'))
    assert asked.service.answers == "decision"
    far.faults = [answered({"same": True}), answered({"same": False})]
    found = asked.compare(flat(1, 2), flat(1, 2))
    assert is_same(asked.service.remote.decision, found).tolist() == [True, False]
    for other in (1, "true", [], {}):
        far.faults = [answered({"same": other})]
        with pytest.raises(InputError, match="must be true or false"):
            asked.compare(flat(1), flat(1))


def one(asked: Asked) -> float:
    return asked.service.compare(flat(1)[0], flat(2)[0])


NONSENSE: dict[str, tuple[Answer, str]] = {
    "no JSON": ((200, {}, b"<html>\x1b[31mred"), "is missing .no JSON"),
    "nothing": ((200, {}, b""), "is missing"),
    "a list": (answered([1, 2]), "is missing"),
    "another key": (answered({"found": []}), "is missing"),
    "null": (answered({"found": [{"score": None}]}), "is missing"),
    "a text": (answered({"found": [{"score": "9"}]}), "must be a number from 0 to 10"),
    "true": (answered({"found": [{"score": True}]}), "must be a number"),
    "too large": (answered({"found": [{"score": 10.1}]}), "must be a number"),
    "too small": (answered({"found": [{"score": -1}]}), "must be a number"),
    "NaN": ((200, {}, b'{"found": [{"score": NaN}]}'), "no JSON"),
    "huge": ((200, {}, b'{"found": [{"score": 1' + b"0" * 400 + b"}]}"), "no JSON"),
    "control characters": (answered({"found": [{"score": "\x1b[31m\u202e"}]}), "must be a number"),
    "long": (answered({"found": [{"score": ["x" * 9000] * 9}]}), "must be a number"),
    "refused": (answered({"error": "no"}, 422), r"rejects the request \(422"),
    "elsewhere": ((302, {"Location": "http://169.254.169.254/"}, b""), r"redirects \(302\)"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused(tmp_path: Path, far: Server, name: str) -> None:
    answer, message = NONSENSE[name]
    asked = connect(describe(tmp_path, far.url))
    far.faults = [answer]
    with pytest.raises(InputError, match=message) as caught:
        one(asked)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert one(asked) == 1, "and the next answer is as good as before"


def test_embeddings_that_are_none_are_refused(tmp_path: Path, far: Server) -> None:
    more = '[output]\nsize = 2\nnormalize = true\n[decision]\nmetric = "cosine"\nthreshold = 1\nmaximum = 2'
    request = 'path = "/e"\ncrop = "/image"'
    asked = connect(describe(tmp_path, far.url, request=request, answer='embedding = "/e"', more=more))
    for value in ([1], [1, 2, 3], [1, "2"], [1, True], [1, 1e39], [1, None], "12", {"0": 1, "1": 2}, 7):
        far.faults = [answered({"e": value})]
        with pytest.raises(InputError, match="must be a list of 2 numbers"):
            asked.embed(to_unit(flat(1)))
    far.faults = [answered({"e": [3, 4]})]
    np.testing.assert_allclose(asked.embed(to_unit(flat(1))), [[0.6, 0.8]])


RULES = """no_face = [
  { status = 400, pointer = "/code", value = 28 },
  { pointer = "/faces", empty = true },
  { status = 500, pointer = "/error", contains = "no face" },
]
again = [{ status = 409 }, { pointer = "/state", value = "loading" }]"""


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answered({"code": 28}, 400), "no face"),
        (answered({"code": 29}, 400), InputError),
        (answered({"code": 28}, 422), InputError),
        (answered({"code": "28"}, 400), InputError),
        (answered({"faces": []}), "no face"),
        (answered({"faces": None}), "no face"),
        (answered({"faces": [1]}), InputError),
        (answered({}), InputError),
        (answered({"error": "there is no face here"}, 500), "no face"),
        (answered({"error": "out of memory"}, 500), TransientError),
        ((500, {}, b"no face"), TransientError),
        (answered({}, 409), TransientError),
        (answered({"state": "loading"}), TransientError),
        (answered({}, 429), TransientError),
        (answered({}, 503), TransientError),
        (answered({}, 401), UnavailableError),
        (answered({}, 403), UnavailableError),
    ],
)
def test_rules_say_what_an_error_means(tmp_path: Path, far: Server, answer: Answer, expected: Any) -> None:
    asked = connect(describe(tmp_path, far.url, answer=f"{ANSWER}\n{RULES}"))
    far.faults = [answer]
    if expected == "no face":
        assert np.isnan(one(asked))
        return
    with pytest.raises(expected):
        one(asked)


def test_a_true_is_no_one_in_a_rule(tmp_path: Path, far: Server) -> None:
    rules = 'no_face = [{ pointer = "/x", value = true }, { pointer = "/y", value = 1 }]'
    asked = connect(describe(tmp_path, far.url, answer=f"{ANSWER}\n{rules}"))
    for document, no_face in (({"x": True}, True), ({"x": 1}, False), ({"y": 1}, True), ({"y": True}, False)):
        far.faults = [answered({**document, "found": [{"score": 9}]})]
        assert np.isnan(one(asked)) == no_face


def test_a_wait_is_what_the_server_asks_for(tmp_path: Path, far: Server) -> None:
    far.faults = [answered({}, 429, Retry_After="7")]
    with pytest.raises(TransientError) as caught:
        one(connect(describe(tmp_path, far.url)))
    assert caught.value.wait == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request": REQUEST.replace("/compare", "compare")}, "request.path must begin with /"),
        ({"request": REQUEST.replace("/compare", "/a b")}, "request.path must begin with /"),
        ({"request": REQUEST.replace("/compare", "/a#b")}, "request.path"),
        ({"request": REQUEST.replace('"/a"', '"a"')}, "request.probe must be a JSON pointer"),
        ({"request": REQUEST.replace('"/a"', '""')}, "request.probe must be a JSON pointer"),
        ({"request": REQUEST.replace('"/a"', '"/~2"')}, "request.probe must be a JSON pointer"),
        ({"request": REQUEST.replace('"/a"', '"/b"')}, "request.reference is no free place"),
        ({"request": REQUEST.replace('"/b"', '"/a/x"')}, "request.reference is no free place"),
        ({"request": REQUEST + "\nconstants = { a = 1 }"}, "request.probe is no free place"),
        ({"request": REQUEST.replace('"/a"', '"/x/3"') + "\nconstants = { x = [] }"}, "request.probe is no free place"),
        ({"request": REQUEST + '\nconstants = { a = { env = "X" } }'}, "request.probe is no free place"),
        ({"request": REQUEST + '\nconstants = { api_key = "123" }'}, "constants.api_key looks like a secret"),
        ({"request": REQUEST + "\nconstants = { day = 2024-01-01 }"}, "date or a time"),
        ({"request": REQUEST + '\nheaders = { x-api-key = "123" }'}, "headers.x-api-key looks like a secret"),
        ({"request": REQUEST + '\nheaders = { Authorization = "Bearer 123" }'}, "looks like a secret"),
        ({"request": REQUEST + '\nheaders = { Host = "other" }'}, "headers.Host is no header that can be set"),
        ({"request": REQUEST + '\nheaders = { content-length = "1" }'}, "is no header that can be set"),
        ({"request": REQUEST + '\nheaders = { X = "a", x = "b" }'}, "is there twice"),
        ({"request": REQUEST + '\nheaders = { "X: a" = "b" }'}, "is no header that can be set"),
        ({"request": REQUEST + '\nheaders = { X = " a" }'}, "must be a text of printable"),
        ({"request": REQUEST + "\nheaders = { X = 1 }"}, "must be a text of printable"),
        ({"request": REQUEST + '\nheaders = { X = { env = "A B" } }'}, r"headers\.X\.env must be the name"),
        ({"request": REQUEST + '\nheaders = { X = { env = "A", value = "x" } }'}, "value is not a known key"),
        ({"request": REQUEST + '\nbody = "image"'}, 'can be "image" only for an embedding'),
        ({"request": REQUEST + '\nbody = "multipart"'}, "must be the name of a part"),
        ({"request": REQUEST + '\nbody = "xml"'}, "request.body must be one of"),
        ({"request": REQUEST + '\nmethod = "GET"'}, "request.method must be one of"),
        ({"request": REQUEST + '\ncrop = "/x"'}, "request.crop is not a known key"),
        ({"answer": "range = [0, 1]"}, "must be there exactly once"),
        ({"answer": ANSWER + '\ndecision = "/x"'}, "must be there exactly once"),
        ({"answer": ANSWER.replace("7", "11")}, "answer.threshold must lie inside"),
        ({"answer": ANSWER.replace("7", "0")}, "answer.threshold must lie inside"),
        ({"answer": ANSWER.replace("[0, 10]", "[10, 0]")}, "answer.range must be"),
        ({"answer": 'distance = "/d"\nrange = [0, 2]\nthreshold = 0'}, "answer.threshold must lie inside"),
        ({"answer": 'decision = "/d"\nthreshold = 1'}, "answer.threshold is not a known key"),
        ({"answer": 'similarity = "d"\nrange = [0, 1]\nthreshold = 0.5'}, "similarity must be a JSON pointer"),
        ({"answer": ANSWER + "\nno_face = [{}]"}, "status or pointer must be there"),
        ({"answer": ANSWER + '\nno_face = [{ pointer = "/a" }]'}, "pointer needs one of"),
        ({"answer": ANSWER + "\nno_face = [{ status = 400, value = 1 }]"}, "pointer needs one of"),
        ({"answer": ANSWER + '\nno_face = [{ pointer = "/a", value = [] }]'}, "value must be a text"),
        ({"answer": ANSWER + '\nno_face = [{ pointer = "/a", contains = "" }]'}, "contains is empty"),
        ({"answer": ANSWER + "\nno_face = [{ status = 99 }]"}, "status must be from 200"),
        ({"answer": ANSWER + "\nno_face = [1]"}, "must be a table"),
        ({"more": "[output]\nsize = 2\nnormalize = true"}, "output is not a known key"),
        ({"url": "http://example.org"}, "without encryption"),
        ({"url": "https://me:word@example.org"}, "no user"),
    ],
)
def test_a_wrong_table_is_named_with_its_key(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_remote(describe(tmp_path, **{"url": "https://example.org", **change}))
    assert "123" not in str(caught.value), "what looks like a secret is not shown"


def test_the_identity_is_what_answers_depend_on(tmp_path: Path) -> None:
    def identity(url: str = "https://example.org", **change: str) -> str:
        return read_remote(describe(tmp_path, url, **change)).identity

    headers = '\nheaders = { X-Key = { env = "A" } }'
    own = identity(request=REQUEST + headers)
    same = [
        identity(request=REQUEST + headers.replace("A", "B")),
        identity(request=REQUEST + headers, answer=ANSWER.replace("7", "8")),
        identity(request=REQUEST + headers, limits="timeout = 9"),
    ]
    others = [
        identity(),
        identity("https://example.com", request=REQUEST + headers),
        identity(request=REQUEST + headers + "\nconstants = { model = 'a' }"),
        identity(request=REQUEST + headers + "\nconstants = { model = 'b' }"),
        identity(request=REQUEST.replace("/compare", "/compare2") + headers),
        identity(request=REQUEST + headers, answer=ANSWER.replace("/score", "/other")),
        identity(request=REQUEST + headers, answer=ANSWER.replace("[0, 10]", "[0, 20]")),
    ]
    assert set(same) == {own}
    assert own not in others[1:]
    assert len(set(others)) == len(others)


def test_pointers_are_those_of_the_rfc() -> None:
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, " ": 7, "m~n": 8, "null": None}
    for text, value in (
        ("", document), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2),
        ("/e^f", 3), ("/ ", 7), ("/m~0n", 8), ("/null", None), ("/foo/2", MISSING), ("/foo/-", MISSING),
        ("/foo/01", MISSING), ("/foo/\u0660", MISSING), ("/foo/bar", MISSING), ("/x", MISSING), ("/a~1b/c", MISSING),
    ):  # fmt: skip
        steps = parse_pointer(text)
        assert steps is not None
        assert find(document, steps) == value or find(document, steps) is value
    assert [parse_pointer(text) for text in ("foo", "/~", "/~2", "#/foo")] == [None] * 4


def test_images_are_put_where_a_pointer_says() -> None:
    for steps, before, after in (
        (("a",), {}, {"a": 1}),
        (("a", "b"), {"c": 2}, {"c": 2, "a": {"b": 1}}),
        (("a", "0", "b"), {}, {"a": [{"b": 1}]}),
        (("a", "1"), {"a": [7]}, {"a": [7, 1]}),
        (("a", "0"), {"a": {}}, {"a": {"0": 1}}),
    ):
        assert put(before, steps, 1)
        assert before == after
    for steps, before in (((), {}), (("a", "b"), {"a": 1}), (("a", "2"), {"a": []}), (("a", "x"), {"a": []})):
        assert not put(before, steps, 1)


def test_a_service_that_hangs_is_given_up_at_the_timeout(tmp_path: Path, far: Server) -> None:
    import time

    asked = connect(describe(tmp_path, far.url, limits="timeout = 0.3"))
    far.faults = [lambda _: time.sleep(1.5)]
    begun = time.monotonic()
    with pytest.raises(TransientError, match=r"in 0\.3 s"):
        one(asked)
    assert time.monotonic() - begun < 1.4


def test_threads_may_share_a_service(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def answer(seen: Seen) -> Answer:
        a, b = (decoded(base64.b64decode(seen.document[key])) for key in "ab")
        return answered({"found": [{"score": 10 - abs(int(a[0, 0, 0]) - int(b[0, 0, 0])) / 10}]})

    with serving(answer) as server, ThreadPoolExecutor(8) as pool:
        service = connect(describe(tmp_path, server.url)).service
        found = list(pool.map(lambda level: service.compare(flat(level)[0], flat(0)[0]), range(40)))
    np.testing.assert_allclose(found, np.arange(40) / 10, atol=1e-9)


def test_errors_are_of_one_family(tmp_path: Path) -> None:
    with pytest.raises(SixpixelsError, match="no answer"):
        connect(describe(tmp_path, "http://127.0.0.1:9")).compare(flat(1), flat(1))
