using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;
using PeftServer.Engine;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Weights;

namespace PeftServer.Inference.Chat;

/// <summary><c>POST /v1/chat/completions</c> and <c>GET /v1/models</c> of the inference process.</summary>
internal static class ChatEndpoints
{
    extension(IEndpointRouteBuilder routes)
    {
        public void MapChat()
        {
            routes.MapPost("/v1/chat/completions", CompleteAsync);
            routes.MapGet("/v1/models", ListModels);
        }
    }

    private static IResult ListModels(ServedModels models) => Results.Json(
        new { Object = "list", Data = models.States().Where(model => model.Value is Core.Inference.InferenceState.Ready).Select(model => new { Id = model.Key, Object = "model" }) },
        PeftJson.Options);

    private static async Task<IResult> CompleteAsync(
        JsonBody<ChatRequest> body, ModelDirectory directory, AdapterFolders adapters, ServedModels models, TimeProvider clock, HttpContext context)
    {
        var (request, cancellationToken) = (body.Value, context.RequestAborted);
        var resolved = await directory.ResolveAsync(Tenancy.DefaultProject, request.Model, cancellationToken);
        if (resolved is null)
        {
            return ApiError.NotFound($"The model '{request.Model}' does not exist. GET /v1/models lists those that do.", "model", "model_not_found");
        }

        if (resolved.Base is null)
        {
            return Unavailable($"The base model '{resolved.BaseName}' of '{resolved.Name}' is not in Models:Root.");
        }

        try
        {
            var served = models.Get(resolved.Base);
            var limits = await served.Engine.Loaded.WaitAsync(cancellationToken);
            var adapter = resolved.Adapter is { } manifest
                ? new AdapterReference(manifest.Digest, await adapters.MaterializeAsync(manifest, cancellationToken))
                : null;
            return Start(request, served, limits, adapter, clock) is var (answers, fault) && fault is not null ? fault : await AnswerAsync(request, answers!, clock, context);
        }
        catch (Exception e) when (e is CheckpointException or AdapterException or NotSupportedException)
        {
            return Unavailable($"'{resolved.Name}' cannot be served: {e.Message}");
        }
    }

    /// <summary>Checks the request against the model and hands it to the engine, once for each choice.</summary>
    private static (Answers? Answers, ApiError? Fault) Start(
        ChatRequest request, ServedModel served, GenerationLimits limits, AdapterReference? adapter, TimeProvider clock)
    {
        var faults = ChatSettings.Faults(request, served.Tokenizer.VocabularySize);
        if (faults.Count > 0)
        {
            return (null, ApiError.From(faults));
        }

        var speech = served.SpeechOf(adapter);
        if (IKnowsTasks.Fault(speech.Adapter, request.TaskId ?? 0) is { } fault)
        {
            return (null, ApiError.BadRequest(fault, "task_id", "invalid_value"));
        }

        int[] prompt;
        try
        {
            prompt = speech.Chat.EncodePrompt(new Conversation { Messages = request.Messages, Tools = request.Tools });
        }
        catch (TemplateException e)
        {
            return (null, ApiError.BadRequest($"The model's chat template does not take these messages: {e.Message}", "messages", "invalid_messages"));
        }

        var most = limits.MaxLength - speech.VirtualTokens;
        var room = most - prompt.Length;
        if (room < 1)
        {
            return (null, ApiError.BadRequest(
                $"This model takes {most} tokens, but the messages alone are {prompt.Length}. Shorten them.", "messages", "context_length_exceeded"));
        }

        return (new Answers(request, served, speech, adapter, prompt, room), null);
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

    private static ApiError Unavailable(string message) => new()
    {
        StatusCode = StatusCodes.Status503ServiceUnavailable,
        Type = "service_unavailable",
        Code = "model_unavailable",
        Message = message,
    };
}
