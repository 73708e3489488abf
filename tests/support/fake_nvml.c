/* A libnvidia-ml.so.1 for machines without a GPU: it says what stands in the file $FAKE_NVML, at each call.
 *
 * Lines of "key number": count; I.util I.memory_util (percent), I.used_gib, I.power_w, I.reasons, I.errors; I.pid I.pid2
 * I.pid3 (processes that compute there), I.instance (the slice that they are on); hang (1: no call returns while it
 * stands there); init.fails, I.fails, I.util.fails, I.pids.fails: the error code of all calls, or of this one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int result;
typedef void *device;

static char text[4096];

static void read_if_new(void) {
    static struct timespec read_at;
    static ino_t read_from;
    struct stat now;
    FILE *file;
    if (stat(getenv("FAKE_NVML"), &now) || (now.st_ino == read_from && now.st_mtim.tv_nsec == read_at.tv_nsec)) return;
    if (!(file = fopen(getenv("FAKE_NVML"), "r"))) return;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    read_at = now.st_mtim, read_from = now.st_ino;
}

static long number(const char *key, long otherwise) {
    char name[64];
    long value;
    int length;
    read_if_new();
    for (char *line = text; sscanf(line, "%63s %ld\n%n", name, &value, &length) == 2; line += length)
        if (!strcmp(name, key)) return value;
    return otherwise;
}

static long of(device gpu, const char *key, long otherwise) {
    char name[64];
    snprintf(name, sizeof name, "%ld.%s", (long)gpu - 1, key);
    return number(name, otherwise);
}

static result answer(device gpu) {
    while (number("hang", 0)) usleep(5000);
    return of(gpu, "fails", 0);
}

const char *nvmlErrorString(result error) { return error == 9 ? "Driver Not Loaded" : "Not Supported"; }
result nvmlInitWithFlags(unsigned flags) { while (number("hang", 0)) usleep(5000); return number("init.fails", 0); }
result nvmlShutdown(void) { return 0; }
result nvmlDeviceGetCount_v2(unsigned *count) { *count = number("count", 1); return 0; }
result nvmlDeviceGetHandleByIndex_v2(unsigned index, device *gpu) {
    *gpu = (device)(long)(index + 1);
    return index < number("count", 1) ? 0 : 2;
}
result nvmlDeviceGetHandleByUUID(const char *uuid, device *gpu) { /* GPU-0, GPU-1, ... */
    return strncmp(uuid, "GPU-", 4) ? 6 : nvmlDeviceGetHandleByIndex_v2(atoi(uuid + 4), gpu);
}
result nvmlDeviceGetUtilizationRates(device gpu, unsigned rates[2]) {
    result failed = answer(gpu);
    rates[0] = of(gpu, "util", 0), rates[1] = of(gpu, "memory_util", 0);
    return failed ? failed : of(gpu, "util.fails", 0);
}
result nvmlDeviceGetMemoryInfo(device gpu, unsigned long long bytes[3]) { /* total, free, used */
    bytes[0] = 80ull << 30, bytes[2] = (unsigned long long)of(gpu, "used_gib", 1) << 30, bytes[1] = bytes[0] - bytes[2];
    return answer(gpu);
}
result nvmlDeviceGetPowerUsage(device gpu, unsigned *milliwatts) {
    *milliwatts = 1000 * of(gpu, "power_w", 100);
    return answer(gpu);
}
result nvmlDeviceGetCurrentClocksEventReasons(device gpu, unsigned long long *reasons) {
    *reasons = of(gpu, "reasons", 0);
    return answer(gpu);
}
result nvmlDeviceGetTotalEccErrors(device gpu, int kind, int since, unsigned long long *count) {
    *count = of(gpu, "errors", 0);
    return kind == 1 && since == 0 ? answer(gpu) : 3;
}

typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } process;

result nvmlDeviceGetComputeRunningProcesses_v3(device gpu, unsigned *count, process *found) {
    const char *keys[] = {"pid", "pid2", "pid3"};
    unsigned room = *count, running = 0;
    result failed = answer(gpu);
    if (failed || (failed = of(gpu, "pids.fails", 0))) return failed;
    for (int i = 0; i < 3; i++) {
        long pid = of(gpu, keys[i], -1);
        if (pid < 0) continue;
        if (found && running < room) found[running] = (process){pid, ~0ull, of(gpu, "instance", -1), -1};
        running++;
    }
    *count = running;
    return running > room ? 7 : 0; /* 7: insufficient size */
}
