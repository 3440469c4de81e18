"""Elements of HTML and SVG. The standard library's writer escapes whatever text comes in."""

from xml.etree.ElementTree import Element, tostring


def node(tag: str, *children: Element | str | None, **attributes: str | float) -> Element:
    """One element.

    Args:
        tag: its name.
        children: elements and text, in order; None is passed over.
        attributes: `class_` stands for class, other underscores for hyphens; numbers keep two decimals.

    Returns:
        The element, which shows text as it is, whatever is in it.
    """
    element = Element(tag, {_name(key): _value(value) for key, value in attributes.items()})
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif child is not None and len(element):
            element[-1].tail = (element[-1].tail or "") + child
        elif child is not None:
            element.text = (element.text or "") + child
    return element


def html(element: Element) -> str:
    """The text of an element and all that is in it."""
    return tostring(element, encoding="unicode", method="html")


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
