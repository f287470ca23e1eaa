"""vLLM's model loader for weights that are already there; the rest is read, stage by stage.

What the store has under our key is mapped. Of what it lacks, the bytes that this stage needs are
read, cut and fused by vLLM's own model code, and published, so that the next engine maps them.
Every parameter is mapped or loaded, or the engine does not start: none is left as allocated.
"""

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from typing import Any

import torch
import vllm

from workers.engine.private.loading import (
    BaseModelLoader,
    DefaultModelLoader,
    get_pp_group,
    get_tp_group,
    initialize_model,
    process_weights_after_loading,
    register_model_loader,
    set_default_torch_dtype,
    stays_as_loaded,
    unpacked_on_cpu,
)
from workers.owner_socket import ChannelError
from workers.weights.checkpoint import (
    check_whole,
    layer_of,
    ranges_of,
    read_tensors,
    weight_files,
)
from workers.weights.key import WeightsKey, group_of
from workers.weights.segment import Manifest, WeightsRefused, create, map_readonly
from workers.weights.tensor_store import StoreClient

log = logging.getLogger("vllm.shunt.weights")

LOAD_FORMAT = "shunt"
"""Name of the loader in vLLM's `load_format`."""
_EMBEDDING = ("embed", "wte", "wpe")
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""As safetensors spells them."""

Parameters = dict[str, torch.nn.Parameter]


@register_model_loader(LOAD_FORMAT)
class StoreLoader(BaseModelLoader):
    """Options: `socket`, of the node's tensor store."""

    def __init__(self, load_config: Any) -> None:
        super().__init__(load_config)
        self._socket = Path(load_config.model_loader_extra_config["socket"])

    def download_model(self, model_config: Any) -> None:
        """The files are on this machine before an engine starts."""

    def load_weights(self, model: torch.nn.Module, model_config: Any) -> None:
        """As vLLM's own loader, for a model that is there already."""
        DefaultModelLoader(_as_stock(self.load_config)).load_weights(model, model_config)

    def load_model(self, vllm_config: Any, model_config: Any, prefix: str = "") -> torch.nn.Module:
        """Raises `WeightsRefused`, naming what does not fit."""
        device = torch.device(vllm_config.device_config.device)
        with set_default_torch_dtype(model_config.dtype):
            with device:
                model = initialize_model(
                    vllm_config=vllm_config, model_config=model_config, prefix=prefix
                )
            self._fill(model, model_config, device)
            with unpacked_on_cpu() if device.type == "cpu" else nullcontext():
                process_weights_after_loading(model, model_config, device)
        return model.eval()

    def _fill(self, model: torch.nn.Module, model_config: Any, device: torch.device) -> None:
        directory = Path(model_config.model)
        parameters = dict(model.named_parameters())
        try:
            store = StoreClient(self._socket)
            content = store.content(str(directory))
        except ChannelError as error:
            log.warning("weights are not shared: %s", error)
            _load(model, model_config, parameters, directory)
            return
        key = _key(content, model_config)
        shared = _Shared(store, key, model, device)
        mapped = shared.attach(parameters)
        missing = {name: p for name, p in parameters.items() if name not in mapped}
        if missing:
            _load(model, model_config, missing, directory)
            shared.publish(missing)
        log.info("weights mapped=%d loaded=%d key=%s", len(mapped), len(missing), key.name[:16])
        # The lease: it is held until this process ends.
        model._shunt_lease = (store, shared)  # type: ignore[assignment]


class _Shared:
    """One rank's dealings with the store."""

    def __init__(
        self, store: StoreClient, key: WeightsKey, model: torch.nn.Module, device: torch.device
    ) -> None:
        self._store = store
        self._key = key
        self._device = device
        self._modules = dict(model.named_modules())
        self._memory: list[Any] = []

    def attach(self, parameters: Parameters) -> set[str]:
        """Map what is there; returns the names."""
        groups = _by_group(parameters)
        done: set[str] = set()
        for group, (manifest, descriptor) in self._attached(list(groups)).items():
            self._place(manifest, descriptor, groups[group])
            done |= groups[group].keys()
        return done

    def _attached(self, groups: list[str]) -> dict[str, tuple[Manifest, int]]:
        try:
            return self._store.attach(self._key, groups)
        except ChannelError as error:
            log.warning("weights are not shared: %s", error)
            return {}

    def publish(self, parameters: Parameters) -> None:
        """Offer what was loaded, and map what the store then has in its place."""
        for group, members in _by_group(parameters).items():
            parts = {name: _bytes_of(parameter) for name, parameter in members.items()}
            descriptor, manifest = create(group, parts)
            with open(descriptor, "rb"):
                try:
                    found = self._store.publish(self._key, group, descriptor, manifest)
                except ChannelError as error:
                    log.warning("weights are not shared: %s", error)
                    return
            for found_manifest, found_descriptor in found.values():
                self._place(found_manifest, found_descriptor, members)

    def _place(self, manifest: Manifest, descriptor: int, parameters: Parameters) -> None:
        with open(descriptor, "rb"):
            memory = map_readonly(descriptor)
        if lacking := parameters.keys() ^ manifest.keys():
            raise WeightsRefused(f"the store has another set of tensors: {sorted(lacking)[:5]}")
        everything = torch.frombuffer(memory, dtype=torch.uint8)
        for name, parameter in parameters.items():
            entry = manifest[name]
            dtype = getattr(torch, entry["dtype"])
            if dtype != parameter.dtype or entry["shape"] != list(parameter.shape):
                raise WeightsRefused(
                    f"tensor {name}: the store has {entry['dtype']} {entry['shape']}, the model "
                    f"needs {parameter.dtype} {list(parameter.shape)}"
                )
            first = entry["offset"]
            view = everything[first : first + entry["num_bytes"]].view(dtype).view(entry["shape"])
            if self._device.type == "cpu" and stays_as_loaded(self._modules[_owner(name)]):
                parameter.data = view
            else:
                parameter.data.copy_(view)
        self._memory.append(memory)


def _key(content: str, model_config: Any) -> WeightsKey:
    group = get_tp_group()
    return WeightsKey(
        content=content,
        dtype=str(model_config.dtype),
        quantization=str(model_config.quantization),
        tp_size=group.world_size,
        tp_rank=group.rank_in_group,
        engine=f"vllm-{vllm.__version__}",
    )


def _load(model: Any, model_config: Any, parameters: Parameters, directory: Path) -> None:
    """Read the checkpoint's tensors of these parameters, and let the model load them."""
    wanted = _Wanted(parameters, tied=_is_tied(model_config))
    by_name = {path.name: path for path in weight_files(directory)}
    stored = [tensor for path in by_name.values() for tensor in check_whole(path)]
    ranges = ranges_of([tensor for tensor in stored if wanted.has(tensor.name)])

    def read(file: str, start: int, length: int) -> bytes:
        with by_name[file].open("rb") as opened:
            opened.seek(start)
            return opened.read(length)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for tensor, data in read_tensors(ranges, read):
            if tensor.dtype not in _DTYPES:
                raise WeightsRefused(f"tensor {tensor.name}: unknown type {tensor.dtype}")
            flat = torch.frombuffer(bytearray(data), dtype=_DTYPES[tensor.dtype])
            yield tensor.name, flat.view(tensor.shape)

    loaded = model.load_weights(tensors())
    lacking = sorted(parameters.keys() - loaded) if loaded is not None else []
    # A quantised method may have parameters that no checkpoint has to name, such as scales.
    if lacking and model_config.quantization is None:
        raise WeightsRefused(f"{directory}: the checkpoint lacks {', '.join(lacking[:5])}")


class _Wanted:
    """Which tensors of a checkpoint the parameters are made of."""

    def __init__(self, parameters: Parameters, *, tied: bool) -> None:
        self._layers = {layer_of(name) for name in parameters} - {None}
        self._outside = any(layer_of(name) is None for name in parameters)
        embeds = any(any(part in name for part in _EMBEDDING) for name in parameters)
        self._embedding = embeds or (tied and get_pp_group().is_last_rank)
        self._last = get_pp_group().is_last_rank

    def has(self, name: str) -> bool:
        layer = layer_of(name)
        if layer is not None:
            return layer in self._layers
        if not self._outside:
            return False
        is_embedding = any(part in name for part in _EMBEDDING)
        return self._embedding if is_embedding else self._last or get_pp_group().is_first_rank


def _is_tied(model_config: Any) -> bool:
    return bool(getattr(model_config.hf_text_config, "tie_word_embeddings", False))


def _by_group(parameters: Parameters) -> dict[str, Parameters]:
    groups: dict[str, Parameters] = {}
    for name, parameter in parameters.items():
        groups.setdefault(group_of(name), {})[name] = parameter
    return groups


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _bytes_of(parameter: torch.nn.Parameter) -> tuple[memoryview, str, list[int]]:
    data = parameter.data.detach().cpu().contiguous()
    array: Any = data.view(-1).view(torch.uint8).numpy()
    return memoryview(array), str(parameter.dtype).removeprefix("torch."), list(parameter.shape)


def _as_stock(load_config: Any) -> Any:
    stock = copy(load_config)
    stock.load_format, stock.model_loader_extra_config = "auto", {}
    return stock
