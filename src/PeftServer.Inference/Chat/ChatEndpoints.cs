using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using PeftServer.Core.Http;
using PeftServer.Core.Inference;
using PeftServer.Engine;
using PeftServer.Inference.Writing;

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
        new { Object = "list", Data = models.States().Where(model => model.Value is InferenceState.Ready).Select(model => new { Id = model.Key, Object = "model" }) },
        PeftJson.Options);

    private static Task<IResult> CompleteAsync(JsonBody<ChatRequest> body, WritingServices services, HttpContext context) =>
        services.ServeAsync(body.Value, context, writer => new ChatAnswers(body.Value, writer, services.Stamp("chatcmpl")));
}
