"""List the configs of the package, with their parameters and multiply-adds; those named can be given by name."""

from _arguments import ROOT, tool_parser

EXAMPLE = """  python tools/list_configs.py
  python tools/list_configs.py dynconv-bn     # those with this in their name"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('part', nargs='?', default='', help='part of the name')
    return parser


def show(args) -> None:
    import yaml

    files = (path.relative_to(ROOT / 'configs') for path in (ROOT / 'configs').rglob('*.py'))
    names = sorted(f.with_suffix('').as_posix().removeprefix('ablations/') for f in files if '_base_' not in f.parts)
    models = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())['Models']
    figures = {model['Name']: model['Metadata'] for model in models}
    print(f'{"config":<44}{"parameters":>12}{"GFLOPs":>9}')
    for name in names:
        if args.part in name:
            figure = figures.get(name)
            cost = f'{figure["Parameters"]:>12,}{figure["FLOPs"] / 1e9:>9.2f}' if figure else ''
            print(f'{name:<44}{cost}'.rstrip())


if __name__ == '__main__':
    show(make_parser().parse_args())
