#!/usr/bin/env bash
# Fetches Debian's Slurm into FOLDER, for the tests of the Slurm guide, and installs nothing:
#   bash tools/slurm.sh FOLDER && SLURM_FOLDER=FOLDER make slurm
set -euo pipefail

folder=${1:?usage: bash tools/slurm.sh FOLDER}
mkdir -p "$folder/packages"
cd "$folder/packages"
# Slurm itself, and of the libraries that it is linked with those that many machines do not have.
apt-get download -qq slurmctld slurmd slurm-client slurm-wlm-basic-plugins libslurm38 \
    libmunge2 libhwloc15 liblua5.1-0 libfreeipmi17 libipmimonitoring6
for package in *.deb; do
    dpkg-deb -x "$package" "$folder"
done
