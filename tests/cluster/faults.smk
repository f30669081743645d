# Small jobs with faults built in, to be run with the profiles of the real workflow.


rule faults:
    input:
        "once.txt",
        "overtime.txt",
        "hungry.txt",


rule once:
    output:
        "once.txt",
    log:
        "logs/once.log",
    shell:
        "(if mkdir tried; then echo no luck yet; exit 1; fi; echo {resources.mem_mb} >{output})"
        " >{log} 2>&1"


# Killed after its first minute; the second attempt has two.
rule overtime:
    output:
        "overtime.txt",
    log:
        "logs/overtime.log",
    resources:
        runtime=lambda wildcards, attempt: attempt,
    shell:
        "(if mkdir slow; then sleep 200; fi; echo {resources.runtime} >{output}) >{log} 2>&1"


rule hungry:
    output:
        "hungry.txt",
    log:
        "logs/hungry.log",
    resources:
        mem_mb=lambda wildcards, attempt: 800 * attempt,
    shell:
        "python3 -c 'taken = bytearray(900_000_000); open(\"{output}\", \"w\").write(\"ok\")'"
        " >{log} 2>&1"


# Writes a line when it begins, so that a second beginning shows.
rule sleeper:
    output:
        "sleeper-{seconds}.txt",
    log:
        "logs/sleeper/{seconds}.log",
    shell:
        "(echo begun >>begun-{wildcards.seconds}; sleep {wildcards.seconds}; echo slept >{output})"
        " >{log} 2>&1"


rule chain:
    input:
        "sleeper-{seconds}.txt",
    output:
        "after-{seconds}.txt",
    shell:
        "cp {input} {output}"


rule gpu:
    output:
        "gpu.txt",
    resources:
        gpu=1,
    shell:
        "sleep 1; echo ran >{output}"
