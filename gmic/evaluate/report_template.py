"""The page of an evaluation report, for jinja2 with automatic escaping. It loads nothing."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { --ink: #1d2430; --soft: #5c6675; --line: #e3e7ec; --paper: #ffffff; --ground: #f4f6f8;
        --one: #1f5fa8; --two: #d9660b; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.notice { position: sticky; top: 0; z-index: 1; background: #ffd65a; color: #3a2c00;
          text-align: center; font-weight: 600; padding: 6px 12px; letter-spacing: .02em; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 28px; line-height: 1.2; margin: 8px 0 4px; }
h2 { font-size: 19px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 18px 0 8px; }
p { margin: 4px 0; }
.soft { color: var(--soft); }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
          padding: 18px 20px; margin: 18px 0; overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px;
         margin: 18px 0 0; }
.tile { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
        padding: 12px 16px; border-top: 4px solid var(--one); }
.tile.second { border-top-color: var(--two); }
.tile b { display: block; font-size: 30px; line-height: 1.15; font-variant-numeric: tabular-nums; }
.counts { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 10px 0 0; padding: 0; }
.counts div b { font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 13px; }
tr:last-child td { border-bottom: 0; }
figure { margin: 0 0 14px; }
figure img { max-width: 100%; display: block; }
.wide img { width: 100%; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 4px; overflow-wrap: anywhere; }
.dark img { background: #000; border-radius: 6px; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 14px; }
.case { border: 1px solid var(--line); border-radius: 8px; padding: 10px; }
.case img { width: 100%; display: block; background: #000; border-radius: 5px; margin-bottom: 6px; }
.case .score { float: right; font-weight: 600; font-variant-numeric: tabular-nums; }
.case .name { overflow-wrap: anywhere; }
details summary { cursor: pointer; font-weight: 600; }
@media print { .notice { position: static; } section { break-inside: avoid; } }
</style>
</head>
<body>
<div class="notice">Research use only, not for clinical use</div>
<main>
<h1>{{ title }}</h1>
{% for line in about %}
<p>{{ line }}</p>
{% endfor %}
<div class="counts">
{% for name, number in counts %}
<div><b>{{ number }}</b> <span class="soft">{{ name }}</span></div>
{% endfor %}
</div>
<div class="tiles">
{% for what, model, value, between in headline %}
<div class="tile{% if model != models[0] %} second{% endif %}">
<span class="soft">{{ what }}</span><b>{{ value }}</b>
<span class="soft">{{ between }}{% if models|length > 1 %} · {{ model }}{% endif %}</span>
</div>
{% endfor %}
</div>
{% macro show(table) %}
<table>
<thead><tr>{% for name in table.header %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
{% if table.note %}<p class="soft">{{ table.note }}</p>{% endif %}
{% endmacro %}
{% for table in tables %}
<section><h2>{{ table.title }}</h2>{{ show(table) }}</section>
{% endfor %}
<section>
<h2>ROC curves</h2>
{% for name, source in roc_charts %}
<figure class="wide"><img src="{{ source }}" alt="{{ name }} ROC curves"><figcaption>{{ name }}, with pointwise
bands of {{ level }}.</figcaption></figure>
{% endfor %}
</section>
{% for name, source in charts %}
<section><h2>{{ name }}</h2><figure><img src="{{ source }}" alt="{{ name }}"></figure></section>
{% endfor %}
<section>
<h2>Calibration</h2>
{% if calibration_chart %}
<figure class="wide"><img src="{{ calibration_chart }}" alt="Reliability curves"><figcaption>Reliability: on the
dotted line, a score of 0.7 means seven in ten. The larger a point, the more breasts.</figcaption>
</figure>
{% else %}
<p class="soft">The scores leave the range from 0 to 1, so calibration does not apply.</p>
{% endif %}
<details><summary>Calibration and operating points in numbers</summary>
{% for table in details %}
<h3>{{ table.title }}</h3>{{ show(table) }}
{% endfor %}
</details>
</section>
{% if gallery %}
<section class="dark">
<h2>Saliency</h2>
<p class="soft">Images with a proven lesion, chosen by no score. White dashes: the lesion's box, where it is known. Full
colour is the strongest cell of the volume.</p>
{% for caption, source in gallery %}
<figure><img src="{{ source }}" alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
</section>
{% endif %}
{% if groups %}
<section>
<h2>Worst cases</h2>
<p class="soft">Images, not breasts: what was taken for a finding, and findings that were missed.</p>
{% for group in groups %}
<h3>{{ group.heading }}</h3>
<div class="cases">
{% for case in group.cases %}
<div class="case">
{% if case.picture %}<img src="{{ case.picture }}" alt="{{ case.name }}">{% endif %}
<span class="score">{{ case.score }}</span><span class="name">{{ case.name }}</span>
<div class="soft">{{ case.labels }} · patient {{ case.patient }}</div>
</div>
{% endfor %}
</div>
{% endfor %}
</section>
{% endif %}
<p class="soft">Intervals of {{ level }} from {{ resamples }} bootstrap resamples of patients, seed
{{ seed }}; resamples of one class are drawn again. Bands of the curves from 200.</p>
</main>
</body>
</html>
"""
