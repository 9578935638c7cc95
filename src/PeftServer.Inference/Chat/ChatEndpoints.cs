using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Engine;

namespace PeftServer.Inference.Chat;

/// <summary><c>POST /v1/chat/completions</c> and <c>GET /v1/models</c> of the inference process.</summary>
internal static class ChatEndpoints
{
    private const string Path = "/v1/chat/completions";

    extension(IEndpointRouteBuilder routes)
    {
        public void MapChat()
        {
            routes.MapPost(Path, CompleteAsync);
            routes.MapGet("/v1/models", ListModels);
        }
    }

    private static IResult ListModels(ServedModels models) => Results.Json(
        new { Object = "list", Data = models.States().Where(model => model.Value is Core.Inference.InferenceState.Ready).Select(model => new { Id = model.Key, Object = "model" }) },
        PeftJson.Options);

    private static async Task<IResult> CompleteAsync(
        JsonBody<ChatRequest> body, RequestedModels requested, ServedModels models, TimeProvider clock, HttpContext context)
    {
        var (request, cancellationToken) = (body.Value, context.RequestAborted);
        var model = await requested.FindAsync(request.Model, Path, cancellationToken);
        return await RequestedModels.ServeAsync(model, async () =>
        {
            var writer = await Writer.LoadAsync(model, models, cancellationToken);
            var faults = ChatSettings.Faults(request, writer.Served.Tokenizer.VocabularySize);
            if (faults.Count > 0)
            {
                return ApiError.From(faults);
            }

            writer.CheckTask(request.TaskId);
            return await AnswerAsync(request, new Answers(request, writer, ChatPrompt.Encode(request, writer)), clock, context);
        });
    }

    private static async Task<IResult> AnswerAsync(ChatRequest request, Answers answers, TimeProvider clock, HttpContext context)
    {
        var (id, created) = ($"chatcmpl-{PublicId.Random(24)}", clock.GetUtcNow().ToUnixTimeSeconds());
        if (request.Stream is not true)
        {
            return Results.Json(await answers.CompleteAsync(id, created, context.RequestAborted), PeftJson.Options);
        }

        context.Response.ContentType = "text/event-stream; charset=utf-8";
        context.Response.Headers.CacheControl = "no-cache";
        await foreach (var chunk in answers.StreamAsync(id, created, context.RequestAborted))
        {
            await context.Response.WriteAsync($"data: {JsonSerializer.Serialize(chunk, PeftJson.Options)}\n\n", context.RequestAborted);
            await context.Response.Body.FlushAsync(context.RequestAborted);
        }

        await context.Response.WriteAsync("data: [DONE]\n\n", context.RequestAborted);
        return Results.Empty;
    }
}
