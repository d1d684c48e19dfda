// Matrix products through CLBlast.
#include "rt/internal.h"

#include <clblast_c.h> // after rt.h, which names the OpenCL version

static CLBlastTranspose transpose(bool is_transposed)
{
    return is_transposed ? CLBlastTransposeYes : CLBlastTransposeNo;
}

// CLBlast keeps its programs, and with them the context, until the process ends or its cache is cleared, for all devices at
// once. Products of other devices that are enqueued now keep their programs; the next ones compile theirs again.
void eq_gemm_forget(const struct eq_device *device)
{
    if (device->has_products)
        CLBlastClearCache();
}

// A batch runs product by product, so one workspace, the largest over the offsets that occur, serves all.
eq_status eq_gemm_workspace(struct eq_device *device, const struct eq_gemm *g, size_t *bytes)
{
    CLBlastStatusCode code = CLBlastSGemmTempBufferSize(
        CLBlastLayoutRowMajor, transpose(g->transpose_a), transpose(g->transpose_b), (size_t)g->m, (size_t)g->n, (size_t)g->k,
        1, (size_t)g->lda, 1, (size_t)g->ldb, 1, (size_t)g->ldc, &device->queue, bytes);
    EQ_REQUIRE(code == CLBlastSuccess, EQ_ERR_DEVICE, "matrix product %d x %d x %d (lda %d, ldb %d, ldc %d): CLBlast error %d",
               g->m, g->n, g->k, g->lda, g->ldb, g->ldc, (int)code);
    return EQ_OK;
}

eq_status eq_gemm_enqueue(struct eq_device *device, const struct eq_gemm *g, struct eq_ref a, struct eq_ref b, struct eq_ref c,
                          struct eq_buffer *workspace)
{
    int batch = g->batch ? g->batch : 1;
    device->has_products = true;
    for (int i = 0; i < batch; i++) {
        size_t at = (size_t)i;
        const struct eq_turn turn = eq_turn_next(device); // CLBlast takes no list of events to wait for
        if (turn.num)
            EQ_CL(clEnqueueBarrierWithWaitList(device->queue, turn.num, turn.wait, NULL), "a matrix product");
        CLBlastStatusCode code = CLBlastSgemmWithTempBuffer(
            CLBlastLayoutRowMajor, transpose(g->transpose_a), transpose(g->transpose_b), (size_t)g->m, (size_t)g->n,
            (size_t)g->k, g->alpha, a.buffer->mem, a.buffer->base + a.at + at * g->stride_a, (size_t)g->lda, b.buffer->mem,
            b.buffer->base + b.at + at * g->stride_b, (size_t)g->ldb, g->beta, c.buffer->mem,
            c.buffer->base + c.at + at * g->stride_c, (size_t)g->ldc, &device->queue, turn.event,
            workspace ? workspace->mem : NULL);
        eq_turn_end(device);
        EQ_REQUIRE(code == CLBlastSuccess, EQ_ERR_DEVICE, "matrix product %d x %d x %d: CLBlast error %d", g->m, g->n, g->k,
                   (int)code);
    }
    return EQ_OK;
}
