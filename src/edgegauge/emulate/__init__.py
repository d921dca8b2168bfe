"""Running a child under another device's limits, to see whether an artifact fits its memory.

    emulator = Emulator(profile, artifact)
    (result,) = measure_emulated(emulator, [workload])
    result.emulation.verdict                    # "fits", "thrashes" or "out of memory"

`places` finds where a control group can be made, `group` makes it and lets a `janitor` remove it
whatever happens to this process, and the child enters it by `enter`. `measure.page_cache` sees that
the model's pages are charged to the run, `verdict` judges what the kernel counted, and `boundary`
searches for the memory at which the verdict changes.
"""
