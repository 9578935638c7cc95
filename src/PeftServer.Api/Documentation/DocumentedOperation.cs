using System.Text.Json.Nodes;
using Microsoft.OpenApi;
using Swashbuckle.AspNetCore.SwaggerGen;

namespace PeftServer.Api.Documentation;

/// <summary>Adds to an operation what its endpoint's metadata says of it.</summary>
internal sealed class DocumentedOperation : IOperationFilter
{
    public void Apply(OpenApiOperation operation, OperationFilterContext context)
    {
        var metadata = context.ApiDescription.ActionDescriptor.EndpointMetadata;
        foreach (var parameter in metadata.OfType<DocumentedParameter>())
        {
            (operation.Parameters ??= []).Add(new OpenApiParameter
            {
                Name = parameter.Name,
                Description = parameter.Description,
                In = parameter.In,
                Required = parameter.In is ParameterLocation.Path,
                Schema = new OpenApiSchema { Type = parameter.Type },
            });
        }

        if (metadata.OfType<FormWithFile>().Any())
        {
            operation.RequestBody = Body("multipart/form-data", FormSchema());
        }

        if (metadata.OfType<ForwardedBody>().Any())
        {
            operation.RequestBody = Body("application/json", ForwardedSchema());
        }

        foreach (var example in metadata.OfType<RequestExample>())
        {
            AddExample(operation, example);
        }
    }

    private static void AddExample(OpenApiOperation operation, RequestExample example)
    {
        if (operation.RequestBody?.Content is { } content && content.TryGetValue("application/json", out var body) && body is OpenApiMediaType media)
        {
            (media.Examples ??= new Dictionary<string, IOpenApiExample>())[example.Name] =
                new OpenApiExample { Summary = example.Name, Value = JsonNode.Parse(example.Json) };
        }
    }

    private static OpenApiRequestBody Body(string type, OpenApiSchema schema) => new()
    {
        Required = true,
        Content = new Dictionary<string, IOpenApiMediaType> { [type] = new OpenApiMediaType { Schema = schema } },
    };

    private static OpenApiSchema FormSchema() => new()
    {
        Type = JsonSchemaType.Object,
        Required = new HashSet<string> { "file", "purpose" },
        Properties = new Dictionary<string, IOpenApiSchema>
        {
            ["file"] = new OpenApiSchema
            {
                Type = JsonSchemaType.String,
                Format = "binary",
                Description = "Rows as JSON Lines, a JSON array, CSV or Parquet; plain, gzip or zstd. Their format is known by their fields: see `peftserver data check`.",
            },
            ["purpose"] = new OpenApiSchema { Type = JsonSchemaType.String, Enum = ["fine-tune"], Default = "fine-tune" },
        },
    };

    private static OpenApiSchema ForwardedSchema() => new()
    {
        Type = JsonSchemaType.Object,
        Description = "OpenAI's request, passed on as it is.",
        Required = new HashSet<string> { "model" },
        Properties = new Dictionary<string, IOpenApiSchema>
        {
            ["model"] = new OpenApiSchema { Type = JsonSchemaType.String, Description = "A base model, or the model that a job made." },
        },
    };
}
