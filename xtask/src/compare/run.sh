#!/bin/sh
# Measures biga beside llama.cpp on this machine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

usage() {
  cat <<EOF
usage: run.sh [--out DIR] [--scratch DIR] [--minutes N] [options of \`compare run\`]

  --out DIR      where results go (default: $here/results); a run goes on after what is there, and from a
                 results.jsonl that lies beside this script
  --scratch DIR  for the unpacked tools and the generated models, some 40 GB (default: /dev/shm if that much is
                 free there, or else whichever of it and \${TMPDIR:-/tmp} has more)
  --minutes N    stop after so long (default: 8)
  --check        only show what both engines see here
  Other options go to \`compare run\`: --models, --tests, --rounds, --device (default: gpu), ...
EOF
}

out=$here/results scratch= minutes=8 check= device=gpu
n=$#
while [ "$n" -gt 0 ]; do
  word=$1
  shift
  n=$((n - 1))
  case $word in
    --out | --scratch | --minutes)
      [ "$n" -gt 0 ] || { usage >&2; exit 2; }
      case $word in --out) out=$1 ;; --scratch) scratch=$1 ;; --minutes) minutes=$1 ;; esac
      shift
      n=$((n - 1))
      ;;
    --check) check=1 ;;
    --help | -h) usage; exit 0 ;;
    *)
      # A machine whose GPU is not found is not to spend its time on the CPU.
      case $word in --device | --device=*) device= ;; esac
      set -- "$@" "$word"
      ;;
  esac
done

free_kib() { df -Pk "$1" 2>/dev/null | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4; }
if [ -z "$scratch" ]; then
  memory=$(free_kib /dev/shm) disk=$(free_kib "${TMPDIR:-/tmp}")
  memory=${memory:-0} disk=${disk:-0}
  if [ "$memory" -ge 40000000 ] || [ "$memory" -ge "$disk" ]; then scratch=/dev/shm; else scratch=${TMPDIR:-/tmp}; fi
  scratch=$scratch/biga-compare
fi
mkdir -p "$scratch" "$out"
if [ -f "$here/results.jsonl" ] && [ ! -f "$out/results.jsonl" ]; then
  cp "$here/results.jsonl" "$out/results.jsonl"
fi

# The tools, once for each version of the pack.
stamp=$(cksum <"$here/root.tar.gz")
root=$scratch/root
if [ "$(cat "$root/stamp" 2>/dev/null)" != "$stamp" ]; then
  rm -rf "$root"
  mkdir -p "$root"
  tar -C "$root" -xzf "$here/root.tar.gz"
  printf '%s\n' "$stamp" >"$root/stamp"
fi

# A driver outside the usual folders.
usual='/etc/vulkan/icd.d /usr/share/vulkan/icd.d /usr/local/etc/vulkan/icd.d /usr/local/share/vulkan/icd.d'
if [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && ! ls $(printf '%s/*.json ' $usual) >/dev/null 2>&1; then
  drivers=$(find /usr/local /opt -maxdepth 6 -path '*/vulkan/icd.d/*.json' 2>/dev/null | tr '\n' ':')
  if [ -n "$drivers" ]; then
    VK_DRIVER_FILES=${drivers%:}
    export VK_DRIVER_FILES
  fi
fi
set -- --libraries "$root" "$@"
for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib; do
  if [ -d "$folder" ]; then set -- "$@" --libraries "$folder"; fi
done
printf 'scratch %s, results %s, Vulkan drivers %s\n' "$scratch" "$out" "${VK_DRIVER_FILES:-in the usual folders}" >&2

if [ -n "$device" ]; then set -- "$@" --device "$device"; fi
loader=$root/usr/lib64/ld-linux-x86-64.so.2 libraries=$root/usr/lib/x86_64-linux-gnu
if [ -n "$check" ]; then
  set -- "$@" --check
else
  set -- "$@" --minutes "$minutes"
fi
exec "$loader" --library-path "$libraries" "$here/bin/compare" run \
  --biga "$here/bin/biga" --out "$out" --model-dir "$scratch/models" "$@"
