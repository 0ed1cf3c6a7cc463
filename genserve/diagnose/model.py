"""The model folder: whether it is one, and each part of it: files, sizes, headers, what is missing.

What a folder must hold is model_check's to say; here it is told part by part, with the command that mends it.
"""

import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

from common.errors import GenServeError
from genserve.diagnose.finding import Check, Note, check, fail, mib, ok, quoted, warn
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.mend import setting
from genserve.diagnose.requirements import restore
from genserve.installation import layout
from gpu_daemon.model_check import INDEX, PARTS, SINGLE_FILES
from gpu_daemon.model_folder import CARD_FILE, EMBEDDED, open_model
from gpu_daemon.safetensors_header import BadFileError, read_json

DEV, SCHNELL = "black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"
SERVICE_USER = layout.USERS[-1]
QUANTISED = frozenset(("U8", "I8", "U16", "I16"))
EIGHT_BITS = frozenset(("F8_E4M3", "F8_E5M2"))
READ, ENTER = os.R_OK, os.X_OK  # also the bits of a mode
LOOK_WITHIN_S = 60.0  # thousands of tensors on a slow disk


@check(
    "model.folder",
    "The model folder: that it is there, in diffusers format, of a FluxPipeline, without code",
    bound_s=LOOK_WITHIN_S,
)
def folder(host: Host) -> Iterator[Note]:
    """Faults of single parts have lines of their own."""
    faults = [fault for fault in host.model.faults_of("") if not fault.startswith(CARD_FILE)]
    for fault in faults:
        yield fail(f"{host.model_path}: {fault}", _mend_folder(host, fault))
    if not faults:
        size = sum(weights.size for weights in host.model.weights.values())
        inside = "genserve-shapes, the small model inside GenServe" if host.model_path == EMBEDDED else host.model_path
        yield ok(f"{inside}: {mib(size)} of weights")


def _is_shapes(path: Path) -> bool:
    """Is it a copy of the small model inside GenServe? Nobody else has that one."""
    try:
        return bool(read_json(path / CARD_FILE).get("name") == read_json(EMBEDDED / CARD_FILE)["name"])
    except BadFileError:
        return False


def _repository(path: Path) -> str:
    """Where such a folder comes from, as far as its name tells."""
    return SCHNELL if "schnell" in path.name.lower() else DEV


def fetch(path: Path, files: str, *options: str) -> str:
    """The command that gets `files` of a model folder ('vae/config.json', 'vae/*') from where they came."""
    if not _is_shapes(path):
        return quoted("hf", "download", _repository(path), "--include", files, "--local-dir", path, *options)
    if (EMBEDDED / files).is_file():
        return quoted("cp", EMBEDDED / files, path / files)
    part = files.partition("/")[0]
    return (
        quoted("cp", "-r", EMBEDDED / part, f"{path}/") if part in PARTS else quoted("cp", "-r", f"{EMBEDDED}/.", path)
    )


def fetch_weights(path: Path) -> str:
    """The command that gets all weights again, those that look whole as well."""
    if path == EMBEDDED:
        return restore(EMBEDDED)
    return fetch(path, "*/*.safetensors", *(() if _is_shapes(path) else ("--force-download",)))


def _mend_folder(host: Host, fault: str) -> str:
    path = host.model_path
    if path == EMBEDDED:
        return restore(EMBEDDED)
    if "is code" in fault:
        return _mend_file(path, fault.partition(" ")[0], fault)
    if "name the snapshot" in fault:
        return setting(host, "gpu_daemon.model_path", fault.rpartition(": ")[2])
    if fault.startswith(INDEX) and "missing" not in fault:
        return _mend_file(path, INDEX, fault)
    # what lies there is something else: it stays, and the whole folder is fetched beside it
    beside = path.with_suffix("") if path.suffix else path
    target = beside.with_name(f"{beside.name}-diffusers") if path.exists() else path
    if path.is_file() and path.suffix not in SINGLE_FILES:  # no model at all: it lies where none should
        target = Path.cwd() / "models" / DEV.rpartition("/")[2]
    get = f"hf download {_repository(path)} --local-dir {quoted(target)} --exclude 'flux1-*.safetensors'"
    if _is_shapes(path):
        get = quoted("cp", "-r", EMBEDDED, target)
    return get if target == path else f"{get} && {setting(host, 'gpu_daemon.model_path', str(target))}"


def _part(name: str) -> Check:
    kind = "vocabulary" if PARTS[name].vocabularies else "weights" if PARTS[name].weights else "config"
    what = {
        "weights": "config, each file of its weights against its header, as many layers as the config says",
        "vocabulary": "config and vocabulary",
        "config": "config",
    }[kind]

    def look(host: Host) -> Iterator[Note]:
        if not (host.model_path / INDEX).exists():
            raise NotChecked("there is no model folder: see model.folder")
        faults = host.model.faults_of(name)
        for fault in faults:
            yield fail(fault, _mend_part(host, name, fault))
        if not faults:
            yield from _weights(host, name) if PARTS[name].weights else [ok(PARTS[name].config)]

    return check(f"model.{name}", f"The part {name}: {what}", bound_s=LOOK_WITHIN_S)(look)


def _weights(host: Host, name: str) -> Iterator[Note]:
    weights = host.model.weights.get(name)
    if weights is None:
        raise NotChecked("the model folder is not one: see model.folder")
    dtypes = ", ".join(sorted(weights.dtypes))
    original = fetch(host.model_path, f"{name}/*")
    files = f"{weights.files} file{'s' if weights.files > 1 else ''}"
    facts = f"{files}, {mib(weights.size)}, {weights.parameters / 1e6:,.1f} M numbers as {dtypes}"
    if found := weights.dtypes & QUANTISED:
        yield fail(
            f"{name}/ holds quantised weights ({', '.join(sorted(found))}), which the engine cannot load", original
        )
    elif weights.dtypes & EIGHT_BITS:
        yield warn(f"{facts}: eight bits a number, which the engine makes wider again", original)
    else:
        yield ok(facts)


def _mend_part(host: Host, name: str, fault: str) -> str:
    if host.model_path == EMBEDDED:
        return restore(EMBEDDED)
    file = fault.partition(" ")[0]
    return _mend_file(host.model_path, f"{name}/*" if file == f"{name}/" else file, fault)


def _mend_file(path: Path, file: str, fault: str) -> str:
    get = fetch(path, file)
    if "is code" in fault:
        return f"rm {quoted(path / file)}"
    if "git-LFS" in fault:
        return f"git -C {quoted(path)} lfs pull"
    if "Permission denied" in fault:
        return f"sudo chmod -R a+rX {quoted(path)}"
    if "web page" in fault:
        return f"{'' if _is_shapes(path) else 'hf auth login && '}rm {quoted(path / file)} && {get}"
    if "auto_map" in fault:
        return f"rm {quoted(path / file)} && {get}"
    if "a variant must be renamed" in fault:
        words = fault.split()
        return quoted(
            "mv", path / file / words[words.index("has") + 1], path / file / words[words.index("where") + 1]
        ).replace("/*", "")
    if "*" in file or not (path / file).exists():
        return get
    return f"rm {quoted(path / file)} && {get}"


@check(
    "model.card",
    "The model's card: its name, its sizes, genserve_model.json; that router.default_model is served",
    bound_s=LOOK_WITHIN_S,
)
def card(host: Host) -> Iterator[Note]:
    """Asked of the daemon's own reader."""
    if host.model.faults:
        raise NotChecked("the model folder has faults: see `--only model`")
    try:
        found = open_model(host.daemon).card
    except GenServeError as error:
        mend = f"${{EDITOR:-nano}} {quoted(host.model_path / CARD_FILE)}"
        if "model_name" in error.message:
            mend = setting(host, "gpu_daemon.model_name", "")
        yield fail(error.message, mend)
        return
    wanted = host.router.default_model
    if wanted and wanted != found.name:
        yield warn(
            f"router.default_model = {wanted!r}, and this machine serves {found.name!r}: requests without a model wait "
            "until somebody serves it",
            setting(host, "router.default_model", found.name),
        )
    yield ok(f"{found.name}, {found.width}x{found.height}, {found.steps} steps")


@check("model.access", "Whether the user that serves may read every file of the folder", bound_s=LOOK_WITHIN_S)
def access(host: Host) -> Iterator[Note]:
    """Root reads everything, the service's own user does not."""
    path = host.model_path
    host.need_model()
    if not path.exists():
        raise NotChecked("there is no model folder: see model.folder")
    may, who = _reader(host)
    closed = [
        found
        for found in _files(path)
        if not _leads_nowhere(found) and not may(found, ENTER | READ if found.is_dir() else READ)
    ]
    mend = f"sudo chmod -R a+rX {quoted(path)}"
    if blocked := next((top for top in reversed(path.parents) if not may(top, ENTER)), None):
        yield fail(f"{who} may not enter {blocked}", f"sudo chmod a+x {quoted(blocked)}")
    elif closed:
        more = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
        yield fail(f"{who} may not read {closed[0].relative_to(path.parent)}{more}", mend)
    else:
        yield ok(f"{who} may read all of it")


def _leads_nowhere(path: Path) -> bool:
    """Is it a link to what is not there? No mode mends that; where the file is needed, its part says so."""
    try:
        return path.is_symlink() and not path.exists()
    except PermissionError:  # it leads where this user may not look
        return False


def _files(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir():
        for top, folders, files in os.walk(path):
            yield from (Path(top, name) for name in folders + files)


def _reader(host: Host) -> tuple[Callable[[Path, int], bool], str]:
    """May the user that serves READ or ENTER a path? And who it is."""
    if (host.units / layout.GPU_TEMPLATE).exists() and os.geteuid() == 0:
        try:
            user = pwd.getpwnam(SERVICE_USER)
        except KeyError:
            pass
        else:
            groups = set(os.getgrouplist(user.pw_name, user.pw_gid))
            return lambda path, how: _allows(path, how, user.pw_uid, groups), SERVICE_USER
    return os.access, "this user"


def _allows(path: Path, how: int, uid: int, groups: set[int]) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    shift = 6 if found.st_uid == uid else 3 if found.st_gid in groups else 0
    return (found.st_mode >> shift) & how == how


CHECKS = (folder, *(_part(name) for name in PARTS), card, access)
