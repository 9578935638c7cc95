using System.Reflection;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Microsoft.OpenApi;
using PeftServer.Api.FineTuning;
using PeftServer.Engine;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Evaluation.Graders;
using PeftServer.Engine.Training.Objectives;
using Swashbuckle.AspNetCore.SwaggerGen;

namespace PeftServer.Api.Documentation;

/// <summary>The OpenAPI document and Swagger UI. Field texts are the docstrings of the types themselves.</summary>
internal static class ApiDocumentation
{
    private const string KeyScheme = "ApiKey";

    extension(WebApplicationBuilder builder)
    {
        public void AddApiDocumentation()
        {
            builder.Services.AddEndpointsApiExplorer();
            builder.Services.AddSwaggerGen(Describe);
        }
    }

    extension(WebApplication app)
    {
        /// <summary>Static pages without secrets: they need no key, what they call does.</summary>
        public void UseApiDocumentation()
        {
            app.UseSwagger();
            app.UseSwaggerUI(ui =>
            {
                ui.DocumentTitle = "PeftServer";
                ui.SwaggerEndpoint("v1/swagger.json", "PeftServer");
                ui.EnablePersistAuthorization();
                ui.DefaultModelsExpandDepth(0);
            });
        }
    }

    private static void Describe(SwaggerGenOptions swagger)
    {
        swagger.SwaggerDoc("v1", new OpenApiInfo
        {
            Title = "PeftServer",
            Version = "v1",
            Description = "Parameter-efficient fine-tuning as a server. The paths and objects are OpenAI's; `peft` and `training` say " +
                "what they cannot, in the words of Hugging Face PEFT and TrainingArguments.",
        });
        foreach (var assembly in new[] { typeof(ApiHost), typeof(AdapterConfig), typeof(Core.PublicId) })
        {
            swagger.IncludeXmlComments(assembly.Assembly);
        }

        swagger.SupportNonNullableReferenceTypes();
        swagger.UseOneOfForPolymorphism();
        swagger.SelectSubTypesUsing(type => type == typeof(AdapterConfig) || type == typeof(Grader) ? DerivedTypes(type).Select(line => line.DerivedType) : []);
        swagger.SelectDiscriminatorNameUsing(type => type.GetCustomAttribute<JsonPolymorphicAttribute>()?.TypeDiscriminatorPropertyName ?? "type");
        swagger.SelectDiscriminatorValueUsing(type =>
            (string?)Ancestors(type).SelectMany(DerivedTypes).FirstOrDefault(line => line.DerivedType == type)?.TypeDiscriminator);
        MapValues(swagger);
        swagger.OperationFilter<DocumentedOperation>();
        swagger.SchemaFilter<DocumentedSchema>();
        swagger.AddSecurityDefinition(KeyScheme, new OpenApiSecurityScheme
        {
            Type = SecuritySchemeType.Http,
            Scheme = "bearer",
            Description = "The value of Auth:ApiKey. A server without one needs none.",
        });
        swagger.AddSecurityRequirement(document => new OpenApiSecurityRequirement
        {
            [new OpenApiSecuritySchemeReference(KeyScheme, document)] = [],
        });
    }

    private static IEnumerable<JsonDerivedTypeAttribute> DerivedTypes(Type type) => type.GetCustomAttributes<JsonDerivedTypeAttribute>(inherit: false);

    private static IEnumerable<Type> Ancestors(Type type)
    {
        for (var parent = type.BaseType; parent is not null; parent = parent.BaseType)
        {
            yield return parent;
        }
    }

    // Types with a JSON form of their own.
    private static void MapValues(SwaggerGenOptions swagger)
    {
        swagger.MapType<AutoNumber>(() => OneOf("A number, or \"auto\".", Number(), Text("auto")));
        swagger.MapType<ModuleSelector>(() => OneOf(
            "A list of module names, a regular expression over module paths, or \"all-linear\".", Text("all-linear"), ListOf(Text())));
        swagger.MapType<LoraInit>(() => OneOf("true, false, or a name.", new OpenApiSchema { Type = JsonSchemaType.Boolean }, Text("gaussian")));
        swagger.MapType<InitChoice>(() => OneOf("true, false, or a name.", new OpenApiSchema { Type = JsonSchemaType.Boolean }, Text()));
        swagger.MapType<OneOrMany<int>>(() => OneOf("One, or a list.", Whole(), ListOf(Whole())));
        swagger.MapType<OneOrMany<string>>(() => OneOf("One, or a list.", Text(), ListOf(Text())));
        swagger.MapType<OneOrMany<DpoLossType>>(() => OneOf("One, or a list.", Text("sigmoid"), ListOf(Text())));
        swagger.MapType<JsonNode>(() => new OpenApiSchema());
        swagger.MapType<JsonObject>(() => new OpenApiSchema { Type = JsonSchemaType.Object });
    }

    private static OpenApiSchema OneOf(string description, params IOpenApiSchema[] forms) => new() { Description = description, AnyOf = [.. forms] };

    private static OpenApiSchema ListOf(IOpenApiSchema item) => new() { Type = JsonSchemaType.Array, Items = item };

    private static OpenApiSchema Text(string? example = null) => new() { Type = JsonSchemaType.String, Examples = example is null ? null : [example] };

    private static OpenApiSchema Number() => new() { Type = JsonSchemaType.Number };

    private static OpenApiSchema Whole() => new() { Type = JsonSchemaType.Integer };
}
