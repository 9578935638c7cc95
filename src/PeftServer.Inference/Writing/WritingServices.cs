using Microsoft.AspNetCore.Http;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Engine;

namespace PeftServer.Inference.Writing;

/// <summary>What the endpoints of models that write have in common: finding the model, checking the request, sending the answer.</summary>
internal sealed class WritingServices(RequestedModels requested, ServedModels models, TimeProvider clock)
{
    /// <summary>Answers one request with the model it names; <paramref name="begin"/> reads the prompts.</summary>
    public async Task<IResult> ServeAsync<T>(T request, HttpContext context, Func<Writer, WrittenAnswers<T>> begin)
        where T : SampledRequest
    {
        var cancellationToken = context.RequestAborted;
        var model = await requested.FindAsync(request.Model, RequestedModels.PathOf(context), cancellationToken);
        return await RequestedModels.ServeAsync(model, async () =>
        {
            var writer = await Writer.LoadAsync(model, models, cancellationToken);
            var faults = request.Faults(writer.Served.Tokenizer.VocabularySize);
            if (faults.Count > 0)
            {
                return ApiError.From(faults);
            }

            writer.CheckTask(request.TaskId);
            var answers = begin(writer);
            return request.Stream is true
                ? await EventStream.BeginAsync(answers.StreamAsync(cancellationToken), cancellationToken)
                : Results.Json(await answers.CompleteAsync(cancellationToken), PeftJson.Options);
        });
    }

    /// <summary>A new answer's id and time.</summary>
    public (string Id, long Created) Stamp(string prefix) => ($"{prefix}-{PublicId.Random(24)}", clock.GetUtcNow().ToUnixTimeSeconds());
}
