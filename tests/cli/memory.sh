#!/bin/sh
# Files that are larger than memory: refused, with the numbers, and before anything is computed. memory.sh PATH_OF_EQUIL
# The files have holes and take no room; memory ends at 1.4 GiB of addresses, of which threads take some each: there are few.
. "$(dirname "$0")/tap.sh"
tool=$equil
limited() {
    (ulimit -v 1500000 && MALLOC_ARENA_MAX=1 POCL_MAX_PTHREAD_COUNT=1 POCL_MAX_CPU_CU_COUNT=1 exec "$tool" "$@")
}

# tensors FILE NAME DIMENSION...: a safetensors file with one tensor of zeros.
tensors() {
    python3 - "$@" <<'PYTHON'
import json, math, struct, sys
path, name, shape = sys.argv[1], sys.argv[2], list(map(int, sys.argv[3:]))
num_bytes = 4 * math.prod(shape)
header = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, num_bytes]}}).encode()
with open(path, "wb") as file:
    file.write(struct.pack("<Q", len(header)) + header)
    file.truncate(8 + len(header) + num_bytes)
PYTHON
}

tensors "$folder/small" input 1 3 32 32
tensors "$folder/large" input 16384 3 224 224
tensors "$folder/weights" fc.weight 30000000 64
network="run --arch resnet20 --classes 10 --output $folder/out"
equil=limited
expect "images" 1 stderr "large: no memory for 2466250752 numbers" $network --weights "$folder/weights" --input "$folder/large"
equil=$tool
expect "weights of another shape are not read" 1 stderr "weights: parameter conv1.weight is missing" $network \
    --weights "$folder/weights" --input "$folder/small"
tensors "$folder/weights" conv1.weight 2000000 3 3 64
expect "nor is the first of them" 1 stderr "conv1.weight has shape [2000000, 3, 3, 64]" $network --weights "$folder/weights" \
    --input "$folder/small"

# Sets that are read whole: of 2 GiB a file at most, and of no more than there is memory.
equil=limited
mkdir "$folder/cifar" "$folder/idx"
training="train --arch resnet20 --epochs 1 --out $folder/run"
truncate -s 3G "$folder/cifar/data_batch_1.bin"
expect "CIFAR-10: the most that a file may have" 1 stderr "data_batch_1.bin: 3221225472 bytes, at most 2147483648 are read" $training \
    --data "cifar10:$folder/cifar"
truncate -s $((3073 * 500000)) "$folder/cifar/data_batch_1.bin"
expect "CIFAR-10: memory" 1 stderr "data_batch_1.bin: out of memory: 1536500000 bytes" $training --data "cifar10:$folder/cifar"
printf '\000\000\010\003\000\035\111\166\000\000\000\034\000\000\000\034' >"$folder/idx/train-images-idx3-ubyte"
truncate -s $((16 + 1919350 * 784)) "$folder/idx/train-images-idx3-ubyte"
expect "IDX: memory" 1 stderr "train-images-idx3-ubyte: out of memory: 1504770416 bytes" $training --data "idx:$folder/idx"
check "nothing was written" sh -c "! test -e '$folder/out' && ! test -e '$folder/run/model.safetensors'"

finish
