"""Compare configs fairly: train each with several seeds and an equal budget, and report differences with intervals.

The first config is the control. Finished runs are skipped and stopped runs continue, so the same command continues an
interrupted comparison, and more configs or seeds add to it. Every run has one device, or a share of the cores.
"""

import sys
from pathlib import Path

from _arguments import add_cfg_options, add_training_arguments, options_of, run_tool, set_options, tool_parser

EXAMPLE = """  python tools/ablate.py configs/yolo11n_digits.py configs/yolo11n_dynconv-bn_digits.py \\
    --seeds 3 --work-dir work_dirs/mine"""
DECLARED = ('primary', 'margin', 'looks', 'last', 'start_epochs')


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files; the first one is the control')
    parser.add_argument('--seeds', type=int, default=3, help='number of seeds of every config (3)')
    parser.add_argument('--first-seed', type=int, default=0, metavar='N', help='seeds are N, N + 1, … (0)')
    parser.add_argument('--work-dir', type=Path, required=True, help='folder of the comparison')
    parser.add_argument('--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on a CPU that has it')
    parser.add_argument(
        '--jobs',
        type=int,
        help='number of parallel runs, which share the cores or the GPUs (1; under Slurm: no limit)',
    )
    parser.add_argument(
        '--launcher', choices=('none', 'slurm'), default='none', help='slurm writes an array script instead of training'
    )
    plan = parser.add_argument_group('what is decided beforehand', 'written to plan.json, and not changed after a run')
    plan.add_argument('--primary', metavar='ARM', help='the one arm whose difference to the control is decided on')
    plan.add_argument('--margin', type=float, help='the largest difference that does not matter, such as 0.01')
    plan.add_argument(
        '--looks', type=int, nargs='+', metavar='PAIRS', help='decide at these numbers of pairs (--seeds)'
    )
    plan.add_argument('--last', type=int, metavar='K', help='the score is the mean of the last K validations (1)')
    plan.add_argument(
        '--start-epochs', type=int, metavar='N', help='arms start from N epochs of the control, once for each seed (0)'
    )
    parser.add_argument('--report-only', action='store_true', help='train nothing, report the finished runs')
    parser.add_argument('--report-dir', type=Path, help='folder of the report (the work dir)')
    parser.add_argument('--latency-rounds', type=int, default=15, help='rounds of timing; 0 skips it (15)')
    add_training_arguments(parser)
    add_cfg_options(parser)
    return parser


def stated_plan(args) -> dict:
    """What the call states of the plan; a primary contrast is decided when all seeds are done, if it says nothing."""
    stated = {name: value for name in DECLARED if (value := getattr(args, name)) is not None}
    if args.primary is not None and args.looks is None and args.seeds > 1:
        stated['looks'] = [args.first_seed + args.seeds]
    return stated


def ablate(args) -> None:
    from mmdyn.ablation.commands import write_commands
    from mmdyn.ablation.comparison import compare
    from mmdyn.ablation.plan import check_recorded, make_plan
    from mmdyn.ablation.report import markdown, write_report
    from mmdyn.ablation.runs import recorded_runs
    from mmdyn.ablation.slurm import write_slurm
    from mmdyn.ablation.sweep import run_all
    from mmdyn.errors import UserError

    if args.seeds < 1 or (args.jobs is not None and args.jobs < 1) or args.latency_rounds < 0:
        numbers = f'{args.seeds}, {args.jobs} and {args.latency_rounds}'
        raise UserError(f'--seeds and --jobs must be at least 1, --latency-rounds at least 0; got {numbers}')
    if not 0 <= args.first_seed < 1 << 31:
        raise UserError(f'--first-seed must be from 0 to {(1 << 31) - 1}, got {args.first_seed}')
    for name, given in (('--patience', args.patience is not None), ('--batch -1', args.batch == -1)):
        if given:
            raise UserError(f'{name} would give the arms of a comparison unequal budgets: omit it')
    plan = make_plan(
        args.configs,
        range(args.first_seed, args.first_seed + args.seeds),
        args.work_dir,
        options_of(args.cfg_options),
        args.amp,
        lambda cfg: set_options(cfg, args),
        stated_plan(args),
    )
    train_tool = Path(__file__).with_name('train.py')
    if args.launcher == 'slurm':
        script = write_slurm(plan, train_tool, args.jobs)
        print(f'To train: sbatch {script}\nThen the same command with --report-only instead of --launcher slurm.')
        return
    if args.report_only:
        check_recorded(plan)
    failed = []
    if not args.report_only:
        try:
            failed = run_all(plan, train_tool, args.jobs or 1)
        except KeyboardInterrupt:
            raise UserError('stopped. The same command continues; --report-only reports the finished runs') from None
    comparison = compare(plan.work_dir, list(plan.arms), args.latency_rounds, plan.seeds)
    folder = args.report_dir or plan.work_dir
    files = write_report(comparison, folder)
    # starts first; the table includes runs of earlier calls
    runs = dict.fromkeys([*plan.starts(), *plan.runs(), *recorded_runs(plan.work_dir)])
    write_commands(list(runs), train_tool, folder / 'commands.sh')
    print(f'\n{markdown(comparison)}\nReport: {files["report.html"]}')
    if failed:
        raise UserError(
            f'{len(failed)} of {len(plan.runs())} runs failed and are not in the table: see their train.log. '
            'The same command runs them again, except those with a loss that is not finite'
        )


if __name__ == '__main__':
    sys.exit(run_tool(ablate, make_parser()))
