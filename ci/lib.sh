# What ci/demo, ci/test and ci/full share: timed parts, and which runtime is used. Sourced, not run.
# shellcheck shell=bash

parts=()
part_name=
part_began=0

# part NAME COMMAND...: run it, and remember its seconds. Whatever fails in it ends the script: nothing here may be
# called from a condition, in which bash forgets `set -e`.
part() {
    part_name=$1 part_began=$SECONDS
    shift
    printf '\n== %s\n' "$part_name" >&2
    "$@"
    end_part
}

end_part() {
    parts+=("$(printf '%6d s  %s' $((SECONDS - part_began)) "$part_name")")
    part_name=
}

at_exit() {
    local status=$? failed=$part_name
    [ -n "$failed" ] || return 0
    end_part
    summary
    printf 'FAILED: %s (exit status %s)\n' "$failed" "$status" >&2
}
trap at_exit EXIT

# The seconds of each part so far.
summary() {
    printf '\n== seconds\n' >&2
    printf '%s\n' "${parts[@]}" >&2
    printf '%6d s  all\n' "$SECONDS" >&2
}

runtime_args=()
plan_args=()
runtime_name=
test_images=

# choose_runtime auto|k3s|standin FILE: sets runtime_args for `k3img build`, what of them `k3img plan` takes
# as plan_args, and runtime_name for people.
# A stand-in takes the place of a k3s that cannot be had, never of one that was had and failed.
choose_runtime() {
    local wanted=$1 file=$2 mirror version log
    test_images=$(ci/runtime images amd64 | tail -n 1) || return
    log=$(dirname "$test_images")/.fetch.log
    if [ -n "$file" ]; then
        runtime_args=(--k3s "$file")
        runtime_name="the k3s file $file"
        return
    fi
    if [ "$wanted" != standin ]; then
        if k3img fetch --profile x86 --locked >/dev/null 2>"$log"; then
            runtime_args=(--locked)
            runtime_name="k3s, as locked in profiles/x86.lock.yaml"
            return
        elif [ "$wanted" = k3s ]; then
            cat "$log" >&2
            exit 4
        fi
        printf 'k3s cannot be had here, so the stand-in is used: %s\n' "$(head -n 1 "$log")" >&2
    fi
    mirror=$(ci/runtime amd64 | tail -n 1) || return
    version=$(basename "$(find "$mirror" -maxdepth 1 -name 'v*' -type d)")
    plan_args=(--set "k3s.version=$version")
    runtime_args=(--k3s-mirror "$mirror" "${plan_args[@]}")
    runtime_name="the stand-in $version, which is not k3s (real Kubernetes, containerd and kine; no flannel, coredns, traefik)"
}
