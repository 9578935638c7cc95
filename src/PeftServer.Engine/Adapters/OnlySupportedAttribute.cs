using System.ComponentModel.DataAnnotations;
using System.Text.Json;

namespace PeftServer.Engine.Adapters;

/// <summary>A field of PEFT's whose other values this server does not compute: they are an error that names the field.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class OnlySupportedAttribute(object? value) : ValidationAttribute
{
    public override bool IsValid(object? value1) => Equals(value1, value);

    public override string FormatErrorMessage(string name) =>
        $"{JsonNamingPolicy.SnakeCaseLower.ConvertName(name)} is supported as {value ?? "null"} only. Remove it.";
}
