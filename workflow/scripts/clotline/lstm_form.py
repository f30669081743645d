"""The form of a stage 2 network: the published one's, or another that the configuration asks for.

Apart from the networks, which import torch, so that a configuration can be checked without it.
"""

#: The keys of an ``lstm`` entry that give its network another form, and the values that leave it
#: the published one: an LSTM layer whose last state is read. Checkpoints of before these keys
#: have that form.
PUBLISHED_FORM = {
    "cell": "lstm",
    "bidirectional": False,
    "layers": 1,
    "pooling": ["last"],
    "neighbour_differences": False,
    "layer_norm": False,
    "projection": None,
    "max_steps": None,
}


def differing_keys(section: dict) -> list[str]:
    """The keys by which an ``lstm`` entry asks for another form than the published one."""
    return [key for key, value in PUBLISHED_FORM.items() if section.get(key, value) != value]


def has_published_form(section: dict) -> bool:
    """Whether an ``lstm`` entry asks for the published network."""
    return not differing_keys(section)


def describe_form(section: dict) -> str:
    """A network's form in a few words, such as "bidirectional GRU of 2 layers of 64 units"."""
    form = PUBLISHED_FORM | section
    layers = f"of {form['layers']} layers " if form["layers"] > 1 else ""
    direction = "bidirectional " if form["bidirectional"] else ""
    words = [f"{direction}{form['cell'].upper()} {layers}of {section['hidden_size']} units"]
    if form["pooling"] != PUBLISHED_FORM["pooling"]:
        words.append(f"pooled by {' and '.join(form['pooling'])}")
    if form["neighbour_differences"]:
        words.append("with neighbours' differences")
    if form["layer_norm"]:
        words.append("with LayerNorm")
    if form["projection"]:
        words.append(f"on a projection to {form['projection']} features")
    if form["max_steps"]:
        words.append(f"in at most {form['max_steps']} steps")
    return ", ".join(words)
