"""Follow objects through a video, a stream or a camera: draws numbers and trails, writes JSON and MOT text.

The model is the same as that of detection; --demo makes a video of moving digits. It needs: pip install trackers
supervision
"""

import sys

from _arguments import (
    add_detection_arguments,
    add_output_arguments,
    add_source_arguments,
    limits_of,
    open_model,
    options_of,
    run_tool,
    tool_parser,
)

EXAMPLE = """  python tools/track.py --demo
  python tools/track.py street.mp4 yolo11n.pt
  python tools/track.py street.mp4 model.onnx --tracker botsort --classes car bus
  python tools/track.py street.mp4 model.onnx --tracker-options lost_track_buffer=60 minimum_consecutive_frames=1
writes track_output/vis, track_output/preds and track_output/tracks"""
TRACKERS = ('bytetrack', 'botsort', 'ocsort', 'cbiou', 'sort')


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument(
        'inputs',
        nargs='?',
        metavar='SOURCE',
        help='video, stream, URL, number of a camera, or folder of images in their order',
    )
    parser.add_argument('--demo', action='store_true', help='make a video of moving digits, and track them')
    add_source_arguments(parser)
    add_detection_arguments(parser, score=0.1)
    tracks = parser.add_argument_group('tracking')
    tracks.add_argument('--tracker', default='bytetrack', metavar='NAME', help=f'{", ".join(TRACKERS)} (bytetrack)')
    tracks.add_argument(
        '--tracker-options', nargs='+', metavar='KEY=VALUE', help='arguments of the tracker in the package trackers'
    )
    add_output_arguments(parser, 'track_output')
    return parser


def make_video(args) -> None:
    """Make a video of moving digits, and choose the packaged detector."""
    from mmdyn.datasets import make_digits_video
    from mmdyn.errors import UserError

    if args.inputs:
        raise UserError(f'--demo makes its own video: omit {args.inputs}, or omit --demo')
    args.inputs, args.model = str(args.out_dir / 'digits.mp4'), ['digits']
    make_digits_video(args.inputs)


def track(args) -> None:
    from mmdyn.errors import UserError
    from mmdyn.inference.results import Outputs, write_results

    if args.batch != 1:
        raise UserError(f'invalid --batch {args.batch}: frames are tracked one after the other, omit it')
    if args.demo:
        make_video(args)
    elif args.inputs is None:
        raise UserError('set a video, a stream, a camera or a folder, and a MODEL; or --demo')
    model = open_model(args)
    media = model.open(args.inputs, args.vid_stride)
    options = options_of(args.tracker_options, '--tracker-options')
    predictions = model.track(media, args.tracker, tracker_options=options, **limits_of(args))
    outputs = Outputs(tracks=True, lines=sys.stdout if args.json_lines else None, show=args.show)
    images, objects = write_results(media, predictions, args.out_dir, outputs)
    print(
        f'{objects} boxes of tracked objects in {images} frames: pictures are in {args.out_dir / "vis"}, '
        f'JSON in {args.out_dir / "preds"}, MOT text in {args.out_dir / "tracks"}.',
        file=sys.stderr if args.json_lines else sys.stdout,
    )


if __name__ == '__main__':
    sys.exit(run_tool(track, make_parser()))
