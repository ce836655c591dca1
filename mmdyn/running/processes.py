"""Processes of one run: joins processes that torchrun, Slurm or MPI started, on GPUs and CPUs."""

import os
import subprocess

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed
from mmengine.utils.dl_utils import set_multi_processing

from mmdyn.errors import UserError

# Launcher -> an environment variable of its processes, and the command that starts them.
LAUNCHERS = {
    'pytorch': ('RANK', 'torchrun starts: use tools/dist_train.sh CONFIG GPUS'),
    'slurm': ('SLURM_PROCID', 'srun starts: use tools/slurm_train.sh PARTITION JOB CONFIG'),
    'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', 'mpirun starts'),
}
# Environment variable of PyTorch -> that of the launcher.
VARIABLES = {
    'pytorch': {},
    'slurm': {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'},
    'mpi': {
        'RANK': 'OMPI_COMM_WORLD_RANK',
        'WORLD_SIZE': 'OMPI_COMM_WORLD_SIZE',
        'LOCAL_RANK': 'OMPI_COMM_WORLD_LOCAL_RANK',
    },
}


def join_processes(cfg: Config) -> None:
    """Join the other processes of the run, if a launcher started this one; a second call does nothing.

    Args:
        cfg: Config with ``launcher`` and, for GPUs, ``env_cfg``.

    Raises:
        UserError: The launcher's environment is missing, or the address of the first process is unknown.
    """
    if cfg.launcher == 'none' or is_distributed():
        return
    variable, starter = LAUNCHERS[cfg.launcher]
    if variable not in os.environ:
        raise UserError(f'--launcher {cfg.launcher} is for processes that {starter}')
    environment = cfg.get('env_cfg', {})
    if torch.cuda.is_available():
        set_multi_processing(**environment.get('mp_cfg', {}), distributed=True)
        init_dist(cfg.launcher, **environment.get('dist_cfg', {}))
        return
    # MMEngine's own set-up needs a GPU
    for name, source in VARIABLES[cfg.launcher].items():
        os.environ[name] = os.environ.get(source, '0')
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_machine(cfg.launcher)
    torch.distributed.init_process_group('gloo')


def _first_machine(launcher: str) -> str:
    """Address of the machine of the first process."""
    on_one = {'slurm': ('SLURM_NNODES', '1'), 'mpi': ('OMPI_COMM_WORLD_LOCAL_SIZE', os.environ['WORLD_SIZE'])}
    variable, value = on_one[launcher]
    if os.environ.get(variable) == value:
        return '127.0.0.1'
    if launcher == 'slurm':
        names = subprocess.run(
            ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']], capture_output=True, text=True, check=True
        )
        return names.stdout.split()[0]
    raise UserError('MASTER_ADDR is not set: set it to the address of the machine of the first process')
