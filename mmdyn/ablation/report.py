"""The report of a comparison: one table as Markdown, CSV and a self-contained page with the plots."""

import math
from pathlib import Path

from mmdyn.files import csv_text, render_page, write_text
from mmdyn.host.environment import environment
from mmdyn.running.testing import task_of_config

from . import plots
from .comparison import ROUNDING, Arm, Comparison, spread
from .power import pairs_for, pairs_for_equivalence, smallest_difference
from .runs import RunResult

COLUMNS = (  # after the score, which is AP or accuracy
    '± std',
    'seeds',
    'difference',
    '95 % interval',
    'detectable',
    'p',
    'shown',
    'best',
    'params',
    'GFLOPs',
    'train',
    'step',
    'latency',
)
PAGE = 'report.html.jinja'
SHOWN_CHANGES = 12
OWN_RECIPE = ('optim_wrapper', 'default_hooks.param_scheduler')


def _number(value: float, digits: int = 3, sign: bool = False) -> str:
    return '–' if math.isnan(value) else f'{value:{"+" if sign else ""}.{digits}f}'


def _milliseconds(value: float, reference: float, digits: int) -> str:
    return '–' if math.isnan(value) else f'{value * 1e3:.{digits}f} ms ({value / reference:.2f})'


def columns(comparison: Comparison) -> tuple[str, ...]:
    """Headings of the table, after the name of the config."""
    return comparison.score, *COLUMNS


def row(arm: Arm, comparison: Comparison) -> list[str]:
    """The cells of an arm, in the order of :func:`columns`.

    Args:
        arm: The arm.
        comparison: All arms; the ratios refer to its control.
    """
    control, primary = comparison.control, comparison.primary
    is_primary = primary is not None and arm.name == primary.declaration.primary
    average, deviation = spread(arm.final)
    found = arm.difference
    interval = (
        '–' if found is None or math.isnan(found.low) else f'{found.low:+.3f} to {found.high:+.3f}, n = {found.pairs}'
    )
    return [
        _number(average),
        _number(deviation),
        f'{len(arm.done)} of {len(arm.runs)}',
        'control' if found is None else _number(found.mean, sign=True),
        interval,
        '' if found is None else _number(found.detectable),
        '' if found is None else _number(found.p),
        '' if found is None else 'see above' if is_primary else found.verdict,
        _number(spread(arm.best)[0]),
        f'{arm.cost.parameters:,}',
        f'{arm.cost.flops / 1e9:.3f}',
        '–' if math.isnan(arm.seconds) else f'{arm.seconds / 60:.1f} min',
        _milliseconds(arm.speed.step, control.speed.step, 0),
        _milliseconds(arm.speed.latency, control.speed.latency, 1),
    ]


def describe(comparison: Comparison) -> list[str]:
    """Sentences that describe data, budget, statistics and timing."""
    cfg, (height, width) = comparison.cfg, comparison.size
    loader, optimizer = cfg.train_dataloader, cfg.optim_wrapper.optimizer
    folder = loader.dataset.get('data_root', loader.dataset.get('ann_file', loader.dataset.type))
    own = any(key.startswith(OWN_RECIPE) for arm in comparison.arms for key in arm.changes)
    nominal = (cfg.get('default_hooks') or {}).get('param_scheduler', {}).get('nominal_batch_size')
    resumed = [f'{r.run.arm} seed {r.run.seed}' for arm in comparison.arms for r in arm.done if r.attempts > 1]
    return [
        f'Data: {folder}, {width} x {height} px. Every run: {cfg.train_cfg.max_epochs} epochs with a batch of '
        f'{loader.get("batch_size", "?")}{f", gradients summed to {nominal}" if nominal else ""}'
        f'{", mixed precision" if cfg.get("amp") else ""}. {optimizer.type} at a rate of {optimizer.get("lr", "?")}'
        f'{" in the control; other arms have their own recipe, see below" if own else ""}.',
        f'{_meaning(comparison)} on the validation set {_when(comparison)}; "best" is that of the best validation, '
        'which is optimistic.',
        f"Differences are to {comparison.control.name}, seed by seed; the interval is Student's at 95 %, of each "
        "arm alone. p is Dunnett's with seeds as blocks, of all arms together: the probability, if no arm differed, "
        'that the largest difference is at least as large. A difference is shown where the interval excludes zero and '
        'p is below 0.05; "only alone" means that the interval excludes zero and p is too large. "detectable" is the '
        'smallest true difference that as many pairs show with a probability of 80 %.',
        'Train is the time of the iterations in the logs, without validation. Runs that shared a machine slowed each '
        'other down, so compare step and latency. Step is forward and backward of the network on a training batch; '
        'latency is one image in float32, batch norms not folded, without decoding and NMS. Both are medians, measured '
        'in turn, with the ratio to the control. Both, parameters and FLOPs (two for every multiply-add, mixing of '
        f'experts included) are at {width} x {height} px.',
        *_unlike_machines(comparison),
        *([f'Resumed, with different random numbers after that: {", ".join(resumed)}.'] if resumed else ()),
    ]


def _when(comparison: Comparison) -> str:
    last = comparison.declaration.last
    return 'after the last epoch' if last == 1 else f'as the mean of the last {last} validations'


def _unlike_machines(comparison: Comparison) -> list[str]:
    """A sentence on pairs whose two runs were not on one kind of machine."""
    kinds = {(arm.name, run.run.seed): run.machines for arm in comparison.arms for run in arm.done}
    control = comparison.control.name
    unlike = [
        f'{arm} seed {seed}'
        for (arm, seed), found in kinds.items()
        if found and kinds.get((control, seed)) and set(found) != set(kinds[control, seed])
    ]
    return [f'On another kind of machine than the control: {", ".join(unlike)}.'] if unlike else []


def decision(comparison: Comparison) -> list[str]:
    """Sentences on the contrast that was declared before the first run; none if none was."""
    primary = comparison.primary
    if primary is None:
        return []
    plan, found, level = primary.declaration, primary.difference, primary.level
    margin, looks = plan.margin or math.nan, ' and '.join(map(str, plan.looks))
    sentences = [
        f'Declared on {plan.date}, before the first run: {plan.primary} against {plan.control} is the one contrast '
        f'that is decided, at {looks} pairs with a level of {level:.4f} each, and a difference of up to {margin:g} '
        'does not matter. All others are exploratory.'
    ]
    if not found.pairs:
        return [*sentences, f'It is not decided yet: fewer than {plan.looks[0]} pairs are done.']
    deviation = max(found.deviation, ROUNDING)
    power = f'{smallest_difference(deviation, found.pairs, level=level):.3f}'
    needed = [
        'more than 10,000' if math.isinf(pairs) else f'{pairs:.0f}'
        for pairs in (pairs_for(margin, deviation, level=level), pairs_for_equivalence(margin, deviation, level=level))
    ]
    again = '' if primary.is_final else f' It is decided again at {plan.looks[-1]}.'
    return [
        *sentences,
        f'At {found.pairs} pairs it shows {primary.verdict}.{again}',
        f'Difference {found.mean:+.4f}, {1 - level:.1%} interval {found.low:+.4f} to {found.high:+.4f}, '
        f'p {primary.p:.3f}; equivalence within ±{margin:g}: p {primary.equivalence_p:.3f}.',
        f'The paired deviation is {deviation:.4f}: these pairs show a difference of {power} with a probability of '
        f'80 %; one of {margin:g} needs {needed[0]} pairs, equivalence within it {needed[1]}.',
    ]


def _meaning(comparison: Comparison) -> str:
    task = task_of_config(comparison.cfg)
    if task.name == 'classify':
        return f'{comparison.score} is the share of images whose best class is right,'
    return f'{comparison.score} is COCO AP of {task.parts}'


def setting() -> str:
    """Machine and versions in one line."""
    facts = environment()
    versions = [f'{name} {facts[name]}' for name in ('mmdyn', 'torch', 'mmengine', 'mmdet', 'mmyolo')]
    device = facts['CPU'] if facts['GPU'] == 'none' else facts['GPU']
    return f'{", ".join(versions)}; {device}'


def warnings(comparison: Comparison) -> list[str]:
    """The runs that are not in the table, and why."""
    alike: dict[tuple[str, str], list[str]] = {}
    for run in comparison.missing:
        alike.setdefault((run.run.arm, str(run.error)), []).append(str(run.run.seed))
    return [f'{arm}, seed {", ".join(seeds)}: {error}' for (arm, error), seeds in alike.items()]


def markdown(comparison: Comparison) -> str:
    """The report as Markdown."""
    lines = [f'# {comparison.control.name} and what differs from it', '']
    lines += [*decision(comparison), *[''] * bool(comparison.primary), *describe(comparison), '']
    if comparison.missing:
        lines += ['**Not in the table:**', '', *(f'- {text}' for text in warnings(comparison)), '']
    headings = ('config', *columns(comparison))
    lines += [f'| {" | ".join(headings)} |', '|---' * len(headings) + '|']
    lines += [f'| {arm.name} | {" | ".join(row(arm, comparison))} |' for arm in comparison.arms]
    return '\n'.join([*lines, '', f'Report and times: {setting()}.', ''])


def summary_csv(comparison: Comparison) -> str:
    """One line per arm; scores have ten digits, because the last digits of a float differ between machines."""
    names = 'config seeds missing ap ap_std difference low high pairs p best_ap parameters flops'
    names += ' train_s iteration_s step_s latency_s'
    rows = []
    for arm in comparison.arms:
        found = arm.difference or (0.0, math.nan, math.nan, len(arm.done), math.nan)
        scores = [*spread(arm.final), *found[:5], spread(arm.best)[0]]
        cost = [arm.cost.parameters, arm.cost.flops, arm.seconds, arm.iteration, arm.speed.step, arm.speed.latency]
        rows.append([arm.name, len(arm.done), len(arm.missing), *(round(s, 10) for s in scores), *cost])
    return csv_text(names.split(), rows)


def runs_csv(comparison: Comparison) -> str:
    """One line per validation of every run."""

    def lines(run: RunResult):
        for epoch, ap in run.ap.items():
            yield run.run.arm, run.run.seed, epoch, ap, run.ap50[epoch], run.loss.get(epoch), run.done, run.attempts

    header = ('config', 'seed', 'epoch', 'ap', 'ap50', 'loss', 'finished', 'attempts')
    return csv_text(header, [line for arm in comparison.arms for run in arm.runs for line in lines(run)])


def html(comparison: Comparison) -> str:
    """The report as one self-contained HTML page."""
    changes = {
        arm.name: [(key, *values) for key, values in list(arm.changes.items())[:SHOWN_CHANGES]]
        for arm in comparison.arms[1:]
    }
    hidden = {arm.name: max(0, len(arm.changes) - SHOWN_CHANGES) for arm in comparison.arms}
    return render_page(
        Path(__file__).with_name(PAGE),
        control=comparison.control.name,
        sentences=[*decision(comparison), *describe(comparison)],
        warnings=warnings(comparison),
        score=comparison.score,
        columns=columns(comparison),
        rows=[
            (arm.name, plots.colour(i), arm.difference.verdict if arm.difference else '', row(arm, comparison))
            for i, arm in enumerate(comparison.arms)
        ],
        curves=plots.curves(comparison),
        forest=plots.forest(comparison) if len(comparison.arms) > 1 else '',
        trade_offs=plots.trade_offs(comparison),
        routing=plots.routing(comparison),
        changes=changes,
        hidden=hidden,
        setting=setting(),
    )


def write_report(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write the report in all formats.

    Args:
        comparison: The comparison to report.
        folder: Output folder.

    Returns:
        The files by name.
    """
    forms = {
        'report.md': markdown,
        'summary.csv': summary_csv,
        'runs.csv': runs_csv,
        'report.html': html,
    }
    texts = {name: make(comparison) for name, make in forms.items()}
    for name, text in texts.items():
        write_text(folder / name, text)
    return {name: folder / name for name in texts}
