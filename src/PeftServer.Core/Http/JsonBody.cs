using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.Extensions.DependencyInjection;
using PeftServer.Engine;
using PeftServer.Engine.Training;

namespace PeftServer.Core.Http;

/// <summary>
/// A JSON body read strictly: what is no JSON, has a wrong type, or a field nobody knows is a 400 that names the place
/// and the remedy, every fault in one answer.
/// </summary>
public sealed class JsonBody<T> : IBindableFromHttpContext<JsonBody<T>>, IEndpointParameterMetadataProvider
    where T : class
{
    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false, MaxDepth = 64 };

    private JsonBody(T value, byte[] utf8) => (Value, Utf8) = (value, utf8);

    public T Value { get; }

    /// <summary>The bytes as they came.</summary>
    public ReadOnlyMemory<byte> Utf8 { get; }

    public static async ValueTask<JsonBody<T>?> BindAsync(HttpContext context, ParameterInfo parameter)
    {
        var maxBytes = context.RequestServices.GetService<JsonBodyLimit>()?.Bytes ?? JsonBodyLimit.Default;
        using var buffer = await RequestBody.ReadJsonAsync(context.Request, maxBytes, context.RequestAborted);
        var utf8 = buffer.ToArray();
        return new JsonBody<T>(Parse(utf8), utf8);
    }

    public static void PopulateMetadata(ParameterInfo parameter, EndpointBuilder builder) =>
        builder.Metadata.Add(new AcceptsMetadata(["application/json"], typeof(T)));

    /// <summary>Without the fields that are "auto", where the request takes them: whoever handles it finds them in <see cref="Utf8"/>.</summary>
    private static JsonDocument Prepared(JsonDocument document)
    {
        if (!typeof(T).IsDefined(typeof(TakesAutoAttribute), inherit: false) || AutoFields.In(document.RootElement) is not { Count: > 0 } auto)
        {
            return document;
        }

        var fields = JsonObject.Create(document.RootElement)!;
        AutoFields.Remove(fields, auto);
        return JsonDocument.Parse(fields.ToJsonString(), Strict);
    }

    /// <summary>Throws <see cref="ApiErrorException"/> with every fault of the document.</summary>
    public static T Parse(ReadOnlyMemory<byte> utf8)
    {
        try
        {
            using var given = JsonDocument.Parse(utf8, Strict);
            using var document = Prepared(given);
            var faults = JsonShape.Faults(document.RootElement, PeftJson.Options.GetTypeInfo(typeof(T)));
            return faults.Count == 0
                ? document.RootElement.Deserialize<T>(PeftJson.Options)!
                : throw new ApiErrorException(ApiError.From(faults.First, faults.Count));
        }
        catch (JsonException e)
        {
            throw RequestBody.NoJson(e);
        }
        catch (InvalidOperationException e)
        {
            // Bytes that are no UTF-8, or half a surrogate pair, which JSON's grammar lets pass.
            throw new ApiErrorException(ApiError.BadRequest($"The body holds text that is no valid Unicode: {e.Message}", code: "invalid_json"));
        }
    }
}

/// <summary>The most bytes a JSON body may have, where a host sets it.</summary>
public sealed record JsonBodyLimit(int Bytes)
{
    public const int Default = 8 << 20;
}

/// <summary>Marks a request whose <c>training</c> and <c>peft</c> take "auto" in the place of a setting's value.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class TakesAutoAttribute : Attribute;
