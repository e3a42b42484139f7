"""Draws a table of bench/owners.sh as SVG: two panels, one line per number of owners, whiskers from min to max.

Only the standard library. Colours and text are legible on light and on dark pages.
"""

import csv
import sys
from collections import defaultdict
from html import escape

WAYS = [("record", "record_exa_usage()"), ("round_trips", "one transaction of updates")]
COLOURS = ["#d1495b", "#d08700", "#2a9d6f", "#3b82d6"]  # fewest owners first
DASHES = ["2 4", "7 4", "12 3 2 3", ""]  # for those who do not tell colours apart
WIDTH, HEIGHT = 860, 440
PANEL_WIDTH, PANEL_HEIGHT, LEFT, TOP, GAP = 350, 250, 70, 96, 40


def read(path):
    """{way: {owners: [(clients, min, median, max), ...]}}"""
    table = defaultdict(lambda: defaultdict(list))
    with open(path, newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            point = tuple(int(row[name]) for name in ("clients", "min", "median", "max"))
            table[row["way"]][int(row["owners"])].append(point)
    return table


def round_step(top):
    """The distance of about five lines of a grid that reaches `top`."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor * 6 >= top:
                return step * factor
        step *= 10


def text(x, y, words, anchor="start", kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def panel(left, title, lines, clients, step, top):
    def place(position, rate):
        x = left + PANEL_WIDTH * (position + 0.5) / len(clients)
        return x, TOP + PANEL_HEIGHT * (1 - rate / top)

    yield text(left, TOP - 12, title, kind="panel")
    for rate in range(0, top + 1, step):
        y = place(0, rate)[1]
        yield f'<line x1="{left}" y1="{y:.1f}" x2="{left + PANEL_WIDTH}" y2="{y:.1f}" class="grid"/>'
        yield text(left - 8, y + 4, f"{rate:,}", "end")
    for position, number in enumerate(clients):
        yield text(place(position, 0)[0], TOP + PANEL_HEIGHT + 20, str(number), "middle")
    yield text(left + PANEL_WIDTH / 2, TOP + PANEL_HEIGHT + 42, "clients", "middle")
    for number, owners in enumerate(sorted(lines)):
        colour = COLOURS[number % len(COLOURS)]
        points = []
        for count, low, median, high in sorted(lines[owners]):
            x, y = place(clients.index(count), median)
            points.append(f"{x:.1f},{y:.1f}")
            y_low, y_high = place(0, low)[1], place(0, high)[1]
            yield f'<line x1="{x:.1f}" y1="{y_low:.1f}" x2="{x:.1f}" y2="{y_high:.1f}" stroke="{colour}"/>'
            yield (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}">'
                   f"<title>{owners:,} owners, {count} clients: {median:,}/s</title></circle>")
        yield (f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2" '
               f'stroke-dasharray="{DASHES[number % len(DASHES)]}"/>')


def legend(owners):
    y = TOP + PANEL_HEIGHT + 76
    x = LEFT
    for number, count in enumerate(owners):
        colour = COLOURS[number % len(COLOURS)]
        dash = DASHES[number % len(DASHES)]
        yield (f'<line x1="{x}" y1="{y - 4}" x2="{x + 34}" y2="{y - 4}" stroke="{colour}" stroke-width="2" '
               f'stroke-dasharray="{dash}"/>')
        yield f'<circle cx="{x + 17}" cy="{y - 4}" r="3.5" fill="{colour}"/>'
        words = f"{count:,} owner" + ("s" if count > 1 else "")
        yield text(x + 42, y, words)
        x += 70 + 8 * len(words)


def draw(table):
    highest = max(point[3] for lines in table.values() for points in lines.values() for point in points)
    step = round_step(highest)
    top = -(-highest // step) * step
    clients = sorted({point[0] for lines in table.values() for points in lines.values() for point in points})
    owners = sorted({count for lines in table.values() for count in lines})
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'width="{WIDTH}" height="{HEIGHT}" role="img">')
    yield "<title>Charges per second against the number of clients and of owners charged</title>"
    yield ("<style>text { font: 13px system-ui, sans-serif; fill: #6b7584 } .title { font-size: 17px; "
           "font-weight: 600 } .panel { font-weight: 600 } .grid { stroke: #8a93a3; stroke-opacity: 0.35 } "
           "@media (prefers-color-scheme: dark) { text { fill: #aab3c0 } }</style>")
    yield text(LEFT, 30, "Charges per second, by clients and by owners charged", kind="title")
    yield text(LEFT, 52, "Committed transactions, one charge each; median of the rounds, whiskers from the lowest to the highest")
    for number, (way, title) in enumerate(WAYS):
        left = LEFT + number * (PANEL_WIDTH + GAP + 20)
        yield from panel(left, title, table[way], clients, step, top)
    yield from legend(owners)
    yield "</svg>"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: chart.py TABLE.tsv >DRAWING.svg")
    print("\n".join(draw(read(sys.argv[1]))))
