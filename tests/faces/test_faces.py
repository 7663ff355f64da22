"""Images, pairs, landmarks and crops: what is read, what is refused, what is left out."""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import InputError, InsufficientError, SixpixelsError
from toolkit.faces.alignment import read_landmarks, similarity_transform
from toolkit.faces.crops import crop_pairs
from toolkit.faces.detection import PARTS
from toolkit.faces.images import read_image
from toolkit.faces.pairs import embedded_pairs, find_pairs, has_generated_faces, load_pairs, read_people

TEMPLATE = np.array([[47.7, 47.1], [100.3, 47.1], [72.1, 76.8], [50.5, 104.3], [97.0, 104.5]])


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def color() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


@pytest.fixture
def people(tmp_path: Path, color: np.ndarray) -> Path:
    for person, count in (("ann", 3), ("bob", 2), ("cy", 1)):
        for i in range(count):
            save(tmp_path / "people" / person / f"{i}.png", color)
    return tmp_path / "people"


def test_png_is_read_exactly_and_in_rgb(tmp_path: Path, color: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", color)), color[..., ::-1])


def test_jpeg_is_read_and_orientation_is_applied(tmp_path: Path) -> None:
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255
    path = save(tmp_path / "a.jpg", image)
    assert read_image(path).shape == (16, 32, 3)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # orientation 6: turn right
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    turned = read_image(path)
    assert turned.shape == (32, 16, 3)
    assert turned[:14].mean() > 250


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_what_follows_the_end_of_an_image_is_ignored(tmp_path: Path, color: np.ndarray, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", color)
    content, whole = path.read_bytes(), read_image(path)
    for trailer in (b"a phone's trailer" * 20, content[: len(content) // 2], b"\xff\xda\xff"):
        path.write_bytes(content + trailer)
        np.testing.assert_array_equal(read_image(path), whole)


def test_an_image_that_ends_early_is_refused_although_a_thumbnail_in_it_does_not(tmp_path: Path) -> None:
    """OpenCV fills the missing part with gray."""
    color = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    content, small = (save(tmp_path / f"{n}.jpg", color[:n, :n]).read_bytes() for n in (200, 8))
    assert len(small) < 60_000
    thumbnail = b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small
    path = _write(tmp_path / "x.jpg", content[:2] + thumbnail + content[2:])
    assert read_image(path).shape == (200, 200, 3)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("quality", [80, 101])
def test_webp_is_read_like_any_image(tmp_path: Path, color: np.ndarray, quality: int) -> None:
    path = tmp_path / "a.webp"
    cv2.imwrite(str(path), color, [cv2.IMWRITE_WEBP_QUALITY, quality])
    read = read_image(path)
    assert read.shape == (20, 30, 3)
    if quality > 100:  # lossless
        np.testing.assert_array_equal(read, color[..., ::-1])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="truncated"):
        read_image(path)
    cv2.imwrite(str(path), np.dstack([color, color[..., :1]]), [cv2.IMWRITE_WEBP_QUALITY, quality])
    with pytest.raises(InputError, match="four channels"):
        read_image(path)


def test_an_lfw_list_must_mean_what_it_says(people: Path) -> None:
    (people / "pairs.txt").write_text("1\nann\t0\t1\nann\t0\tann\t1\n")
    with pytest.raises(InputError, match=r"pairs\.txt:3: .* both are 'ann'"):
        load_pairs(people)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, c: save(p / "x.png", c[..., 0]), "gray"),
        (lambda p, c: save(p / "x.jpg", c[..., 0]), "gray"),
        (lambda p, c: save(p / "x.png", np.dstack([c, c[..., 0]])), "four channels"),
        (lambda p, c: save(p / "x.png", c.astype(np.uint16) * 257), "16 bits"),
        (lambda p, c: _cut(save(p / "x.png", c)), "truncated"),
        (lambda p, c: _cut(save(p / "x.jpg", c)), "truncated"),
        (lambda p, c: _write(p / "x.jpg", b"hello"), "not a complete JPEG, PNG or WebP"),
        (lambda p, c: _write(p / "x.jpg", b""), "not a complete JPEG, PNG or WebP"),
        (lambda p, c: p / "nothing.png", "cannot be read"),
        (lambda p, c: _announce(save(p / "x.png", c), 60_000), "megapixels"),
        (lambda p, c: _transparent(save(p / "x.png", c)), "four channels"),
    ],
)  # fmt: skip
def test_images_that_are_refused(tmp_path: Path, color: np.ndarray, make, message: str) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path, color)
    with pytest.raises(InputError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    return path


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def _transparent(path: Path) -> Path:
    """A PNG in RGB that declares one color transparent."""
    data = path.read_bytes()
    chunk = b"tRNS" + b"\0" * 6
    chunk = (6).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    path.write_bytes(data[:33] + chunk + data[33:])
    return path


def _announce(path: Path, side: int) -> Path:
    """A PNG whose header claims to be `side` pixels wide and high."""
    data = bytearray(path.read_bytes())
    data[16:24] = side.to_bytes(4, "big") * 2
    path.write_bytes(bytes(data))
    return path


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_image_is_an_input_error_or_an_image(tmp_path: Path, color: np.ndarray, data: st.DataObject) -> None:
    path = save(tmp_path / data.draw(st.sampled_from(["a.jpg", "a.png"])), color)
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    with suppress(InputError):
        assert read_image(path).shape[-1] == 3


def test_csv_labels_folds_and_header(people: Path) -> None:
    (people / "pairs.csv").write_text(
        "probe,reference,label,fold\nann/0.png,ann/1.png,same,1\nann/0.png,bob/0.png,Different,2\n"
    )
    pairs = load_pairs(people).pairs
    assert [(p.probe, p.genuine, p.fold) for p in pairs] == [("ann/0.png", True, 1), ("ann/0.png", False, 2)]
    assert [p.fold for p in load_pairs(people, folds=[2]).pairs] == [2]
    with pytest.raises(InputError, match="no fold 7"):
        load_pairs(people, folds=[7])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ann/0.png,ann/1.png,same\nann/0.png,ann/1.png", ":2: has 2 fields; must be probe, reference"),
        ("ann/0.png,ann/1.png,alike", ":1: 'alike' is not a label"),
        ("ann/0.png,../../x.png,same", "leaves the folder"),
        ("ann/0.png,/etc/passwd,same", "leaves the folder"),
        ("ann/0.png,ann/9.png,same", "ann/9.png: no such image"),
        ("ann/0.png,ann/1.png,same,first", "fold must be an integer"),
        (",ann/1.png,same", "empty"),
        ("ann/0.png,ann/1.png,same,0", "fold must be an integer"),
        ("ann/0.png,ann/1.png,same," + "9" * 5000, "fold must be an integer"),
        ("ann/0.png,ann/0.png,same", "are the same image"),
        ("ann/0.png,ann/1.png,same\nann/0.png,ann/1.png,different", "labeled both same and different"),
        ("a" * 300 + ",ann/1.png,same", "is not a valid path"),
        ("ann/0.png,ann/1.png,label", "is not a label"),
        ("\n\nann/0.png,ann/1.png,alike", ":3: 'alike' is not a label"),
        ('ann/0.png,ann/1.png,"same"\n"ann/\n\n0.png",ann/1.png,same\nann/0.png,b', r":5: has 2 fields"),
        ("ann/0.png,ann/1.png,same\r\rann/0.png,ann/1.png,alike", ":3: 'alike' is not a label"),
        ("ann/0.png,ann/1.png,same\nann/0.png\0,ann/1.png,same", ":2: has a null character"),
        ("ann/0.png,ann/1.png,same\n" + "a" * 200_000 + ",ann/1.png,same", r":2: is not CSV \(field larger"),
        ('ann/0.png,ann/1.png,same\n"ann/0.png,ann/1.png,same\n', ":2: is not CSV"),
        ("," * 100_000, ":1: has 100001 fields"),
        ("a/" * 3000 + ",ann/1.png,same", "is not a valid path"),
    ],
)
def test_broken_csv_lines_are_named(people: Path, text: str, message: str) -> None:
    (people / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_pairs(people)


@pytest.mark.parametrize(
    "text",
    [
        "file1;file2;issame\nann/0.png;ann/1.png;1\nann/0.png;bob/1.png;0\n",
        "ann/0.png\tann/1.png\tsame\nann/0.png\tbob/1.png\tdifferent\n",
        "Label,Image1,Image2\ntrue,ann/0.png,ann/1.png\nfalse,ann/0.png,bob/1.png\n",
        "img1,img2,is_same,name1,name2\nann/0.png,ann/1.png,1,ann,ann\nann/0.png,bob/1.png,0,ann,bob\n",
    ],
    ids=["semicolons", "tabs", "order", "people"],
)
def test_lists_of_others_are_understood(people: Path, text: str) -> None:
    (people / "pairs.csv").write_text(text)
    pairs = load_pairs(people).pairs
    assert [(p.probe, p.reference, p.genuine) for p in pairs] == [
        ("ann/0.png", "ann/1.png", True), ("ann/0.png", "bob/1.png", False)
    ]  # fmt: skip


def test_a_header_of_unknown_names_is_told(people: Path) -> None:
    (people / "pairs.csv").write_text("left;right;verdict\nann/0.png;ann/1.png;1\n")
    with pytest.raises(
        InputError, match=r":1: has the columns left, right, verdict; a list of pairs begins with probe"
    ):
        load_pairs(people)


def test_files_of_systems_are_no_photographs(people: Path) -> None:
    expected = load_pairs(people).pairs
    for path in (people / "ann" / "._0.png", people / "ann" / ".DS_Store", people / ".cache" / "0.png"):
        _write(path, b"of a system")
    assert load_pairs(people).pairs == expected


def test_aligned_copies_of_lfw_may_have_another_format(people: Path, color: np.ndarray) -> None:
    for person in ("ann", "bob"):
        for i in (1, 2):
            save(people / "lfw" / person / f"{person}_000{i}.png", color)
    (people / "pairs.txt").write_text("1\nann\t1\t2\nann\t1\tbob\t2\n")
    names = [(pair.probe, pair.reference) for pair in load_pairs(people).pairs]
    assert names == [("ann/ann_0001.png", "ann/ann_0002.png"), ("ann/ann_0001.png", "bob/bob_0002.png")]


def test_all_images_that_are_missing_or_bad_are_named_at_once(people: Path, color: np.ndarray) -> None:
    (people / "pairs.csv").write_text("".join(f"ann/{i}.png,bob/{i}.png,different\n" for i in range(4)))
    with pytest.raises(InputError, match=r"3 images are missing in .*: bob/2.png, ann/3.png, bob/3.png"):
        load_pairs(people)
    save(people / "ann" / "1.png", color[..., 0])
    _cut(save(people / "bob" / "1.png", color))
    (people / "pairs.csv").write_text("ann/0.png,bob/0.png,different\nann/1.png,bob/1.png,different\n")
    with pytest.raises(InputError, match=r"2 images cannot be used: .*ann/1.png: is gray.*bob/1.png: .*truncated"):
        crop_pairs(load_pairs(people), 30, 20, None)


def a_generated_face() -> Path:
    return min((embedded_pairs() / "images").rglob("*.jpg"))


def test_the_embedded_faces_are_generated() -> None:
    assert has_generated_faces(find_pairs())


def test_other_faces_are_not_generated(people: Path) -> None:
    assert not has_generated_faces(load_pairs(people))
    # As many bytes, but another image.
    whole = bytearray(a_generated_face().read_bytes())
    whole[-100] ^= 1
    (people / "ann" / "9.jpg").write_bytes(whole)
    assert not has_generated_faces(load_pairs(people))


@pytest.mark.parametrize("side", ["probe", "reference"])
def test_one_copy_of_a_generated_face_is_found_under_another_name(people: Path, side: str) -> None:
    """A folder of one's own makes nobody a person."""
    (people / "bob" / "holiday.jpeg").write_bytes(a_generated_face().read_bytes())
    names = ("bob/holiday.jpeg", "ann/0.png") if side == "probe" else ("ann/0.png", "bob/holiday.jpeg")
    lines = ["ann/0.png,ann/1.png,same", "ann/0.png,bob/0.png,different"]
    (people / "pairs.csv").write_text("\n".join(lines))
    assert not has_generated_faces(load_pairs(people)), "an image that no pair has does not matter"
    (people / "pairs.csv").write_text("\n".join([*lines, ",".join([*names, "different"])]))
    assert has_generated_faces(load_pairs(people))


def test_a_list_may_name_its_people(people: Path) -> None:
    head = "probe,reference,label,fold,probe_person,reference_person\n"
    (people / "pairs.csv").write_text(
        f"{head}ann/0.png,ann/1.png,same,,Ann,Ann\nann/0.png,bob/0.png,different,2,Ann,Bob\n"
    )
    found = load_pairs(people).pairs
    assert [(p.fold, p.probe_identity, p.reference_identity) for p in found] == [
        (None, "Ann", "Ann"),
        (2, "Ann", "Bob"),
    ]
    for people_of, label in (("Ann,Bob", "same"), ("Ann,Ann", "different")):
        (people / "pairs.csv").write_text(f"{head}ann/0.png,ann/1.png,{label},1,{people_of}\n")
        with pytest.raises(InputError, match=r":2: 'Ann' and '(Ann|Bob)' do not fit the label"):
            load_pairs(people)


def test_a_list_may_label_groups_of_pairs(people: Path) -> None:
    """With a header, only the columns that it names; without one, all of them, empty where nothing is known."""
    for text in (
        "probe,reference,label,group\nann/0.png,ann/1.png,same,20-39\nann/0.png,bob/0.png,different,\n",
        "probe,reference,label,group,fold\nann/0.png,ann/1.png,same,20-39,\nann/0.png,bob/0.png,different,,\n",
        "ann/0.png,ann/1.png,same,,,,20-39\nann/0.png,bob/0.png,different,,Ann,Bob,\n",
    ):
        (people / "pairs.csv").write_text(text)
        pairs = load_pairs(people).pairs
        assert [(p.subgroup, p.fold, p.genuine) for p in pairs] == [("20-39", None, True), (None, None, False)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("probe,reference,label,sex\n", ":1: the column 'sex' is not one of probe, .* group, or is there twice"),
        ("probe,reference,label,group,group\n", ":1: the column 'group'"),
        ("probe,reference,label,group\nann/0.png,ann/1.png,same\n", ":2: has 3 fields, but the header names 4"),
        ("ann/0.png,ann/1.png,same,,Ann\n", ":1: has 5 fields; must be probe"),
        (f"ann/0.png,ann/1.png,same,,,,{'x' * 201}\n", ":1: the group has 201 characters; the most is 200"),
        ("".join(f"ann/0.png,ann/1.png,same,,,,{i}\n" for i in range(101)), "has more than 100 groups"),
    ],
)
def test_groups_that_cannot_be_are_refused(people: Path, text: str, message: str) -> None:
    (people / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_pairs(people)


@pytest.mark.parametrize("codec", ["utf-16", "utf-32", "latin-1"])
@pytest.mark.parametrize("name", ["pairs.csv", "pairs.txt", "landmarks.csv"])
def test_a_list_in_another_encoding_is_refused_by_name(people: Path, codec: str, name: str) -> None:
    (people / name).write_bytes("1\nzoë/0.png,ann/1.png,same".encode(codec))
    with pytest.raises(InputError, match=rf"{name}.*(UTF-8)"):
        read_landmarks(people / name) if name == "landmarks.csv" else load_pairs(people)


def test_a_name_that_is_not_unicode_is_refused(people: Path) -> None:
    folder = people / os.fsdecode(b"z\xff")
    folder.mkdir()
    for photo in ("0.png", "1.png"):
        (folder / photo).touch()
    with pytest.raises(InputError, match="not UTF-8"):
        load_pairs(people)


def test_a_list_with_too_many_lines_is_refused(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.faces.lists._MOST_LINES", 3)
    (people / "pairs.csv").write_text("ann/0.png,ann/1.png,same\n" * 3)
    assert load_pairs(people).pairs
    (people / "pairs.csv").write_text("ann/0.png,ann/1.png,same\n" * 4)
    with pytest.raises(InputError, match="more than 3 lines"):
        load_pairs(people)


def test_nothing_to_test_is_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("probe,reference,label\n")
    with pytest.raises(InsufficientError, match="no pairs"):
        load_pairs(tmp_path)
    (tmp_path / "pairs.csv").unlink()
    with pytest.raises(InsufficientError, match="neither"):
        load_pairs(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_pairs(tmp_path / "nowhere")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["pairs.csv", "pairs.txt", "people.txt", "landmarks.csv"]),
    content=st.binary(max_size=200) | st.text('abn,/\t\n12".0', max_size=80).map(str.encode),
)
def test_any_list_is_read_or_refused(people: Path, name: str, content: bytes) -> None:
    for old in people.glob("*.*"):
        old.unlink()
    (people / name).write_bytes(content)
    with suppress(SixpixelsError):
        if name == "people.txt":
            read_people(people / name)
        elif name == "landmarks.csv":
            read_landmarks(people / name)
        else:
            load_pairs(people)


def test_a_folder_per_person(people: Path) -> None:
    pairs = load_pairs(people).pairs
    genuine = {p.id for p in pairs if p.genuine}
    assert len(genuine) == 3 + 1
    impostor = [p for p in pairs if not p.genuine]
    assert len(impostor) == 4
    assert all(p.probe_identity != p.reference_identity for p in impostor)
    assert load_pairs(people, seed=0).pairs == load_pairs(people, seed=0).pairs


def test_limit_is_balanced_seeded_and_honest(people: Path) -> None:
    whole = load_pairs(people, seed=3)
    some = load_pairs(people, limit=4, seed=3)
    assert sum(p.genuine for p in some.pairs) == 2
    assert some == load_pairs(people, limit=4, seed=3)
    assert set(some.pairs) < set(whole.pairs)
    assert "4 of 8 pairs, seed 3" in some.source


@pytest.mark.shared
def test_the_official_lfw_lists(shared: Path) -> None:
    pairs = load_pairs(shared / "lfw", folds=[7, 8]).pairs
    assert len(pairs) == 1200
    assert sum(p.genuine for p in pairs) == 600
    assert {p.fold for p in pairs} == {7, 8}
    people = read_people(shared / "lfw" / "people.txt")
    assert len(people) == 8
    trained = {name for names in people[:6] for name in names}
    assert not trained & {p.probe_identity for p in pairs}


def test_similarity_is_recovered_despite_an_outlier() -> None:
    angle, scale = 0.3, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = TEMPLATE @ turn.T + [12, -5]
    points[2] += [40, 25]
    matrix = similarity_transform(points, TEMPLATE)
    assert matrix is not None
    back = points @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(np.delete(back, 2, 0), np.delete(TEMPLATE, 2, 0), atol=1e-3)


def write_landmarks(folder: Path, rows: dict[str, tuple[float, np.ndarray]]) -> None:
    header = ["image", "confidence", *(f"{part}_{axis}" for part in PARTS for axis in "xy")]
    lines = [",".join(header)]
    for name, (confidence, points) in rows.items():
        lines.append(",".join([name, str(confidence), *(str(v) for v in points.ravel())]))
    (folder / "landmarks.csv").write_text("\n".join(lines))


def test_crops_put_landmarks_on_the_template_and_faceless_pairs_are_counted(tmp_path: Path) -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    points = TEMPLATE + np.array([20, 30])
    for x, y in points:
        cv2.circle(image, (round(x), round(y)), 3, (255, 255, 255), -1)
    rows = {}
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        save(tmp_path / name, image)
        rows[name] = (0.0 if name == "b/1.png" else 0.9, points)
    write_landmarks(tmp_path, rows)
    (tmp_path / "pairs.csv").write_text("a/1.png,a/2.png,same\na/1.png,b/1.png,different\n")
    crops = crop_pairs(load_pairs(tmp_path), 150, 150, tuple(map(tuple, TEMPLATE)))
    assert crops.images.shape == (2, 150, 150, 3)
    for x, y in TEMPLATE:
        assert crops.images[0, round(y), round(x)].min() > 200
    assert [(o.pair.reference, o.reason) for o in crops.left_out] == [("b/1.png", "no face found in b/1.png")]
    assert len(crops.pairs) == len(crops.index) == 1


def test_no_pair_left_is_an_error(tmp_path: Path, color: np.ndarray) -> None:
    for name in ("a/1.png", "a/2.png"):
        save(tmp_path / name, color)
    write_landmarks(tmp_path, {"a/1.png": (0.0, TEMPLATE), "a/2.png": (0.9, TEMPLATE)})
    (tmp_path / "pairs.csv").write_text("a/1.png,a/2.png,same\n")
    with pytest.raises(InsufficientError, match="no face found"):
        crop_pairs(load_pairs(tmp_path), 150, 150, tuple(map(tuple, TEMPLATE)))


def test_without_a_template_images_are_crops_already(people: Path, color: np.ndarray) -> None:
    (people / "pairs.csv").write_text("ann/0.png,ann/1.png,same\n")
    crops = crop_pairs(load_pairs(people), 30, 20, None)
    np.testing.assert_array_equal(crops.images[0], color[..., ::-1])
    with pytest.raises(InputError, match="is 30 x 20, but"):
        crop_pairs(load_pairs(people), 20, 20, None)
