using System.Reflection;
using System.Text.Json;

namespace PeftServer.Engine.Adapters;

/// <summary>A setting of a job that PEFT does not have: it never goes into <c>adapter_config.json</c>, whose fields PEFT must know.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class JobOnlyAttribute : Attribute
{
    /// <summary>Names of such settings of <paramref name="config"/> as JSON has them.</summary>
    public static IEnumerable<string> FieldsOf(Type config) =>
        config.GetProperties().Where(property => property.IsDefined(typeof(JobOnlyAttribute))).Select(property => JsonNamingPolicy.SnakeCaseLower.ConvertName(property.Name));
}
