"""For sphinx-gallery: the figures that experiments return, which pyplot does not know of.

A page has one shown by giving it the name `fig`.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

seen: list[Figure] = []


def scrape(block, block_vars, gallery_conf) -> str:
    """Save `fig`, if this block has made one without pyplot, and return the text that shows it."""
    fig = block_vars["example_globals"].get("fig")
    if not isinstance(fig, Figure) or fig in seen:
        return ""
    seen.append(fig)
    if fig in map(plt.figure, plt.get_fignums()):
        return ""
    path = next(block_vars["image_path_iterator"])
    fig.savefig(path, dpi=100)
    return figure_rst([path], gallery_conf["src_dir"])


def _get_sg_image_scraper():
    return scrape
