#!/usr/bin/env bash
# Everything worth measuring when a machine with one large GPU is at hand for a quarter of an hour.
#
#   bash tools/gpu_day.sh --wheels    here, with a network: fetch packages that the machine may lack
#   bash tools/gpu_day.sh             there: all steps in order; run it again to go on
#   bash tools/gpu_day.sh STEP...     there: these steps
#   bash tools/gpu_day.sh --dry-run   on a CPU: the same steps at small sizes
#   bash tools/gpu_day.sh --list      the steps and the seconds that each may take
#
# Results go to $OUT (runs/gpu_day without it), each as soon as it is there. A step that was done
# is passed over; a step that fails or runs out of time does not stop the others. The exit code is
# 0 only when every chosen step is done.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} wheels=.wheels small= chosen=()
for word in "$@"; do
    case $word in
        --wheels) fetch=1 ;;
        --dry-run) small=--small ;;
        --list) list=1 ;;
        -*) echo "gpu_day: found $word, expected --wheels, --dry-run, --list or names of steps" >&2; exit 2 ;;
        *) chosen+=("$word") ;;
    esac
done
out=${OUT:-runs/gpu_day}${small:+/dry} weights=nbs/records/weights

if [ -n "${fetch:-}" ]; then # pure packages and those for CPython 3.12; tools/gpu_wheels.py says which are expected there
    mkdir -p $wheels
    "$python" tools/gpu_wheels.py > $wheels/list.txt || exit 1
    exec "$python" -m pip download -q --no-deps --only-binary=:all: -d $wheels -r $wheels/list.txt \
        --python-version "${GPU_PYTHON:-3.12}" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64
fi

# name, seconds it may take, command; the order is the order of their worth
steps=(
    "doctor|120|$python -m ferretlite doctor"
    "train-7b|240|$python tools/gpu_steps.py train ferret-v2-7b --lora 64 $small --out $out/train-7b.json"
    "train-13b|240|$python tools/gpu_steps.py train griffon-v2-13b --lora 64 $small --out $out/train-13b.json"
    "tests|240|$python -m pytest -q -n0 -m cuda -p no:cacheprovider tests/test_cuda.py tests/test_cuda_kernels.py"
    "cost|240|$python tools/gpu_steps.py cost $small --out $out/cost.json"
    "kernels|240|$python -m ferretlite bench kernels --json $out/kernels.json"
    "tiny|240|$python -m ferretlite train --preset tiny-wide --towers $weights/towers-wide --lm $weights/lm-wide --samples 120000 --resume --out $out/tiny-wide"
)
if [ -n "$small" ]; then # what needs a GPU says so on a CPU: that sentence is the check
    steps[3]="tests|240|$python -m pytest -q -n0 -m cuda -p no:cacheprovider tests/test_cuda_kernels.py"
    steps[5]="kernels|60|{ $python -m ferretlite bench kernels 2>&1 || true; } | grep 'found no NVIDIA GPU'"
    steps[6]="tiny|240|$python -m ferretlite train --preset tiny --samples 96 --resume --out $out/tiny"
fi
known=" $(printf '%s\n' "${steps[@]}" | cut -d'|' -f1 | tr '\n' ' ')"
for name in ${chosen[@]+"${chosen[@]}"}; do
    case $known in *" $name "*) ;; *) echo "gpu_day: found $name, expected steps among$known" >&2; exit 2 ;; esac
done
if [ -n "${list:-}" ]; then printf '%s\n' "${steps[@]}" | cut -d'|' -f1,2 | tr '|' '\t'; exit; fi

mkdir -p "$out"
if [ -d $wheels ] && [ -z "$small" ]; then
    site=${TMPDIR:-/tmp}/gpu_day_site
    [ -d "$site" ] || { # whole or not at all
        rm -rf "$site.part"
        "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site.part" $wheels/*.whl &&
            mv "$site.part" "$site"
    } || exit 1
    export PYTHONPATH=$site
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

failed=0
for step in "${steps[@]}"; do
    IFS='|' read -r name seconds command <<<"$step"
    [ ${#chosen[@]} -eq 0 ] || [[ " ${chosen[*]} " == *" $name "* ]] || continue
    if [ -e "$out/$name.done" ]; then echo "$name: done before"; continue; fi
    began=$SECONDS
    [ -z "$small" ] || seconds=900 # a CPU may be busy; there the time says nothing
    timeout -k 10 "$seconds" bash -c "set -o pipefail; ${step#*|*|}" >"$out/$name.log" 2>&1
    code=$?
    case $code in
        0) touch "$out/$name.done"; said=done ;;
        124 | 137) said="out of time; run it again to go on" failed=1 ;;
        *) said="failed ($code): $(tail -n 1 "$out/$name.log")"; failed=1 ;;
    esac
    echo "$name: $said after $((SECONDS - began)) s"
done
exit $failed
