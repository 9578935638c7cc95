using Microsoft.AspNetCore.Http;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Engine;
using PeftServer.Engine.Adapters;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Reading;

/// <summary>What the endpoints of models that read have in common: finding the model, checking the request, writing the answer.</summary>
internal sealed class ReadingServices(RequestedModels requested, Readers readers, TimeProvider clock)
{
    /// <summary>Answers one request with the model it names.</summary>
    public async Task<IResult> ServeAsync<T>(T request, HttpContext context, Func<Reader, T, Task<IResult>> answer)
        where T : ReadingRequestBody
    {
        var faults = Faults(request);
        if (faults.Count > 0)
        {
            return ApiError.From(faults);
        }

        var model = await requested.FindAsync(request.Model, RequestedModels.PathOf(context), context.RequestAborted);
        return await RequestedModels.ServeAsync(model, async () =>
        {
            var reader = await readers.LoadAsync(model, context.RequestAborted);
            return IKnowsTasks.Fault(reader.Settings, request.TaskId ?? 0) is { } fault ? throw Fault("task_id", fault) : await answer(reader, request);
        });
    }

    /// <summary>The answer, with the tokens that were read.</summary>
    public IResult Answer<T>(string prefix, ReadingRequestBody request, IReadOnlyList<TextInput> texts, IReadOnlyList<T> data) => Results.Json(
        new ReadingAnswer<T>($"{prefix}-{PublicId.Random(24)}", clock.GetUtcNow().ToUnixTimeSeconds(), request.Model, data, new ReadingUsage(texts.Sum(text => text.Ids.Length))),
        PeftJson.Options);

    public static ApiErrorException Fault(string field, string message, string code = "invalid_value") => new(ApiError.BadRequest(message, field, code));

    private static List<ErrorDetail> Faults(ReadingRequestBody request)
    {
        var faults = new List<ErrorDetail>();
        faults.Range("task_id", request.TaskId, 0, int.MaxValue);
        if (request.TruncatePromptTokens is < -1 or 0)
        {
            faults.Fault("truncate_prompt_tokens", $"'truncate_prompt_tokens' is {request.TruncatePromptTokens}; it must be -1 or at least 1.");
        }

        switch (request)
        {
            case AnswerRequest answer:
                faults.Range("top_k", answer.TopK, 1, 100);
                faults.Range("max_answer_len", answer.MaxAnswerLen, 1, 512);
                faults.Range("doc_stride", answer.DocStride, 0, int.MaxValue);
                break;
            case EmbeddingRequest embedding:
                faults.Range("dimensions", embedding.Dimensions, 1, int.MaxValue);
                CheckFormat(embedding.EncodingFormat, faults);
                break;
            case PoolingRequest pooling:
                CheckFormat(pooling.EncodingFormat, faults);
                break;
        }

        return faults;
    }

    private static void CheckFormat(string? format, List<ErrorDetail> faults)
    {
        if (format is not (null or "float" or "base64"))
        {
            faults.Fault("encoding_format", $"'encoding_format' is '{ForeignText.Clean(format, 40)}'; it must be float or base64.");
        }
    }
}
