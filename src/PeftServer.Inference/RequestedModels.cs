using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Inference;

/// <summary>A model as a request names it, ready to be loaded.</summary>
/// <param name="Name">Its name, aliases resolved.</param>
/// <param name="Base">The base.</param>
/// <param name="Adapter">The adapter on it, its files at hand; null for the base alone.</param>
/// <param name="Head">What stands on top.</param>
internal sealed record RequestedModel(string Name, BaseModel Base, AdapterReference? Adapter, ModelHead Head)
{
    public ModelTask Task => ModelTasks.Of(Head);
}

/// <summary>Finds the models that requests name.</summary>
internal sealed class RequestedModels(ModelDirectory directory, AdapterFolders adapters, ModelTaskReader tasks)
{
    /// <summary>
    /// The model of that name, for <paramref name="path"/>, which answers for some tasks; null: for one that answers for all. Throws <see cref="ApiErrorException"/> where there is
    /// none, its base is gone, or another path is for models like it.
    /// </summary>
    public async Task<RequestedModel> FindAsync(string name, string? path, CancellationToken cancellationToken)
    {
        var resolved = await directory.ResolveAsync(Tenancy.DefaultProject, name, cancellationToken)
            ?? throw new ApiErrorException(ApiError.NotFound(
                $"The model '{ForeignText.Clean(name, 200)}' does not exist. GET /v1/models lists those that do.", "model", "model_not_found"));
        if (resolved.Base is null)
        {
            throw new ApiErrorException(Unavailable($"The base model '{resolved.BaseName}' of '{resolved.Name}' is not in Models:Root."));
        }

        // What cannot be told from a config is a writer's to load, and to say why it cannot.
        var head = await tasks.HeadOfAsync(resolved.Base, resolved.Adapter, cancellationToken) ?? ModelHead.CausalLM;
        var task = ModelTasks.Of(head);
        if (path is not null && !task.Endpoints.Contains(path))
        {
            throw new ApiErrorException(ApiError.BadRequest(
                $"'{resolved.Name}' {task.Does}, which POST {path} is not for. Use POST {task.Endpoints[0]}.", "model", "unsupported_model"));
        }

        var adapter = resolved.Adapter is { } manifest
            ? new AdapterReference(manifest.Digest, await adapters.MaterializeAsync(manifest, cancellationToken))
            : null;
        return new RequestedModel(resolved.Name, resolved.Base, adapter, head);
    }

    /// <summary>The path that a request is for, as <see cref="ModelTasks"/> writes it: routing overlooks case and a slash at the end.</summary>
    public static string PathOf(HttpContext context) => ((RouteEndpoint)context.GetEndpoint()!).RoutePattern.RawText!;

    /// <summary>Does <paramref name="work"/> with a model; why it cannot be loaded is a 503 that says so.</summary>
    public static async Task<IResult> ServeAsync(RequestedModel model, Func<Task<IResult>> work)
    {
        try
        {
            return await work();
        }
        catch (Exception e) when (e is CheckpointException or AdapterException or NotSupportedException)
        {
            return Unavailable($"'{model.Name}' cannot be served: {e.Message}");
        }
    }

    private static ApiError Unavailable(string message) => new()
    {
        StatusCode = StatusCodes.Status503ServiceUnavailable,
        Type = "service_unavailable",
        Code = "model_unavailable",
        Message = message,
    };
}
