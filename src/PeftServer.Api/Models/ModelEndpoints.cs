using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using PeftServer.Api.Documentation;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;

namespace PeftServer.Api.Models;

/// <summary><c>/v1/models</c>: the base models and what jobs made of them.</summary>
internal static class ModelEndpoints
{
    private const string AdapterSuffix = "/adapter";

    extension(WebApplication app)
    {
        public void MapModels()
        {
            var models = app.MapGroup("/v1/models").WithTags("Models");

            models.MapGet("", ListAsync).WithName("ListModels").WithSummary("List base and fine-tuned models");
            models.MapGet("/{model}/adapter", GetAsync).WithName("GetModelAdapter").WithModelInPath().WithSummary("Download an adapter")
                .WithDescription("A zip of the PEFT checkpoint: adapter_config.json, adapter_model.safetensors and what trained with them.")
                .Produces(200, contentType: "application/zip").ProducesErrors(404);
            models.MapGet("/{**model}", GetAsync).WithName("GetModel").WithModelInPath().WithSummary("Look at a model")
                .Produces<ModelObject>().ProducesErrors(404);
            models.MapDelete("/{**model}", DeleteAsync).WithName("DeleteModel").WithModelInPath()
                .WithSummary("Delete a fine-tuned model").ProducesErrors(403, 404);
        }
    }

    /// <summary>The answer where no model has that name.</summary>
    public static ApiError NoModel(string id) => ApiError.NotFound(
        $"The model '{ForeignText.Clean(id, 200)}' does not exist or you do not have access to it. GET /v1/models lists the models.",
        "model", "model_not_found");

    private static async Task<Ok<ListObject<ModelObject>>> ListAsync(
        BaseModels bases, ModelDirectory models, ModelTaskReader tasks, IOptions<ModelsOptions> options, CancellationToken cancellationToken)
    {
        var found = bases.List();
        var all = found.Select(model => ModelObject.From(model, tasks.HeadOf(model))).ToList();
        var fineTuned = await models.ListFineTunedAsync(Tenancy.DefaultProject, cancellationToken);
        var adapters = await models.AdaptersAsync([.. fineTuned.Select(model => model.AdapterDigest)], cancellationToken);
        foreach (var model in fineTuned)
        {
            var head = await tasks.HeadOfAsync(found.FirstOrDefault(other => other.Name == model.BaseModel), adapters.GetValueOrDefault(model.AdapterDigest), cancellationToken);
            all.Add(ModelObject.From(model, options.Value.Organization, head));
        }

        return TypedResults.Ok(ListObject.Of<ModelObject>([.. all], model => model.Id, hasMore: false));
    }

    // One handler for both paths: ids hold '/', so only the models that there are tell where an id ends.
    private static async Task<IResult> GetAsync(
        HttpContext context, BaseModels bases, ModelDirectory models, ModelTaskReader tasks, IArtifactStore store, IOptions<ModelsOptions> options,
        CancellationToken cancellationToken)
    {
        var id = ModelPath.IdOf(context);
        if (await FindAsync(id, bases, models, tasks, options.Value.Organization, cancellationToken) is { } model)
        {
            return TypedResults.Ok(model);
        }

        if (!id.EndsWith(AdapterSuffix, StringComparison.Ordinal))
        {
            return NoModel(id);
        }

        var name = id[..^AdapterSuffix.Length];
        return await models.ResolveAsync(Tenancy.DefaultProject, name, cancellationToken) switch
        {
            null => NoModel(name),
            { Adapter: null } => ApiError.NotFound($"'{name}' is a base model: it has no adapter.", "model", "adapter_not_found"),
            { Adapter: var adapter } => await AdapterArchive.OpenAsync(adapter, store, cancellationToken),
        };
    }

    private static async Task<ModelObject?> FindAsync(
        string id, BaseModels bases, ModelDirectory models, ModelTaskReader tasks, string organization, CancellationToken cancellationToken) =>
        bases.Find(id) is { } found ? ModelObject.From(found, tasks.HeadOf(found))
        : await models.ResolveAsync(Tenancy.DefaultProject, id, cancellationToken) is { } resolved
            && await models.FindFineTunedAsync(Tenancy.DefaultProject, resolved.Name, cancellationToken) is { } model
            ? ModelObject.From(model, organization, await tasks.HeadOfAsync(resolved.Base, resolved.Adapter, cancellationToken)) with { Id = id }
        : null;

    private static async Task<Results<Ok<DeletedObject>, ApiError>> DeleteAsync(
        HttpContext context, BaseModels bases, ModelDirectory models, CancellationToken cancellationToken)
    {
        var id = ModelPath.IdOf(context);
        if (bases.Find(id) is not null)
        {
            return new ApiError
            {
                StatusCode = StatusCodes.Status403Forbidden,
                Message = $"'{id}' is a base model. Its folder in the server's model root is its operator's to remove.",
                Param = "model",
                Code = "base_model",
            };
        }

        return await models.DeleteFineTunedAsync(Tenancy.DefaultProject, id, cancellationToken)
            ? TypedResults.Ok(new DeletedObject(id, "model"))
            : NoModel(id);
    }
}
