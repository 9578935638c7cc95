using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Microsoft.OpenApi;
using PeftServer.Engine;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Training;
using Swashbuckle.AspNetCore.SwaggerGen;

namespace PeftServer.Api.Documentation;

/// <summary>Shows the defaults of settings, and speaks of fields by their names on the wire.</summary>
internal sealed partial class DocumentedSchema : ISchemaFilter
{
    public void Apply(IOpenApiSchema schema, SchemaFilterContext context)
    {
        if (schema is not OpenApiSchema { Properties: { } properties } record)
        {
            return;
        }

        var defaults = DefaultsOf(context.Type);
        foreach (var (name, property) in properties)
        {
            property.Description = WireNames(property.Description);
            if (property is OpenApiSchema field && defaults?[name] is { } value)
            {
                field.Default = value.DeepClone();
            }
        }

        record.Description = WireNames(record.Description);
        if (context.Type == typeof(AdapterConfig))
        {
            record.AdditionalPropertiesAllowed = true; // each method adds its own
        }
    }

    private static JsonObject? DefaultsOf(Type type) =>
        type == typeof(TrainingArguments) || AdapterConfig.Types.Values.Contains(type)
            ? JsonSerializer.SerializeToNode(Activator.CreateInstance(type), type, PeftJson.Options)!.AsObject()
            : null;

    private static string? WireNames(string? text) =>
        text is null ? null : Reference().Replace(text, match => JsonNamingPolicy.SnakeCaseLower.ConvertName(match.Groups["name"].Value));

    // <see cref="LoraConfig.TargetModules"/> arrives as the full name.
    [GeneratedRegex(@"\b(?:PeftServer|System)(?:\.\w+)+\.(?<name>\w+)")]
    private static partial Regex Reference();
}
