"""Grounding multimodal LLMs from scratch. The names below are loaded when they are first used."""

__version__ = "0.1.0"

_HOMES = {  # module -> the names that users import from `ferretlite` itself
    "common.errors": ("FerretliteWarning", "InputError"),
    "common.files": ("WEIGHTS",),
    "regions.geometry": ("Box", "Mask", "Point", "box_iou"),
    "regions.grammar": ("Grounding", "format_groundings", "parse_groundings"),
    "scenes.world": ("Scene", "make_scene"),
    "scenes.questions": ("Conversation", "Crop", "Turn"),
    "vision.resolution": ("FERRET_GRIDS", "LLAVA_NEXT_GRIDS", "choose_grid"),
    "vision.sampler": ("SpatialAwareSampler",),
    "vision.downsampling": ("ConvDownsampler",),
    "model.towers": ("FerretConfig", "FerretForConditionalGeneration", "paper_config"),
    "model.processing": ("FerretProcessor",),
    "model.answers": ("Answer", "GroundingList"),
    "model.inference": ("Ferret",),
    "training.runs": ("train",),
    "evaluation.suites": ("evaluate",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME]


def __getattr__(name):
    "Import the module of a public name when the name is first used."
    if name not in _HOME:
        raise AttributeError(f"module 'ferretlite' has no attribute {name!r}")
    from importlib import import_module

    if _HOME[name].startswith("model."):  # whose auto classes transformers then knows, all of them
        import_module("ferretlite.model.processing")
    value = getattr(import_module(f"ferretlite.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
