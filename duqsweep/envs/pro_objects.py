"""The objects of LIBERO-PRO that hf-libero does not know: other looks of LIBERO's own."""

from __future__ import annotations

from typing import Any

# LIBERO-PRO's category → LIBERO's category that it is placed, opened and switched on like. Its mesh
# and texture have its own name and lie among LIBERO's assets. blue_ketchup and yellow_milk stand
# upright in their own files, which ketchup and milk do not.
LIKE = {
    "bigger_akita_black_bowl": "akita_black_bowl",
    "bigger_alphabet_soup": "alphabet_soup",
    "black_bowl": "akita_black_bowl",
    "blue_ketchup": "alphabet_soup",
    "brown_rack": "wine_rack",
    "green_bbq_sauce": "bbq_sauce",
    "green_butter": "butter",
    "green_chocolate_pudding": "chocolate_pudding",
    "red_basket": "basket",
    "red_cream_cheese": "cream_cheese",
    "red_salad_dressing": "salad_dressing",
    "white_bottle": "wine_bottle",
    "yellow_cabinet": "wooden_cabinet",
    "yellow_milk": "alphabet_soup",
    "yellow_moka_pot": "moka_pot",
    "yellow_plate": "plate",
    "yellow_stove": "flat_stove",
    "yellow_tomato_sauce": "tomato_sauce",
}


def register_pro_objects() -> None:
    """Make them known to LIBERO; `prepare_libero` must have run. May be called again."""
    from libero.libero.envs import base_object
    from libero.libero.envs.objects import OBJECTS_DICT

    for category, like in LIKE.items():
        if category in OBJECTS_DICT:
            continue
        made = _variant(category, OBJECTS_DICT[like])
        base_object.register_object(made)
        if like in base_object.VISUAL_CHANGE_OBJECTS_DICT:
            base_object.register_visual_change_object(made)


def _variant(category: str, like: type) -> type:
    """A class that LIBERO names `category`: it takes the name from the class's own."""

    def initialise(
        self: Any, name: str = category, obj_name: str = category, **kwargs: Any
    ) -> None:
        like.__init__(self, name, obj_name, **kwargs)  # type: ignore[misc]

    class_name = "".join(word.capitalize() for word in category.split("_"))
    return type(class_name, (like,), {"__init__": initialise})
