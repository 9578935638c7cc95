using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.ChangeTracking;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using Microsoft.EntityFrameworkCore.Storage.ValueConversion;
using PeftServer.Engine;

namespace PeftServer.Core.Data;

internal static class JsonConversion
{
    extension<T>(PropertyBuilder<T> property)
    {
        /// <summary>Stores an immutable record as jsonb, with the discriminator of its derived type.</summary>
        public PropertyBuilder<T> HasJsonConversion() => property
            .HasColumnType("jsonb")
            .HasConversion(
                new ValueConverter<T, string>(value => Write(value), json => Read<T>(json)),
                new ValueComparer<T>((one, other) => Write(one) == Write(other), value => StringComparer.Ordinal.GetHashCode(Write(value))));
    }

    extension<T>(PropertyBuilder<T> property)
        where T : struct, Enum
    {
        /// <summary>Stores an enum by its snake_case name, as it is on the wire.</summary>
        public PropertyBuilder<T> HasNameConversion() => property.HasConversion(Names<T>());
    }

    extension<T>(PropertyBuilder<T?> property)
        where T : struct, Enum
    {
        public PropertyBuilder<T?> HasNameConversion() => property.HasConversion(Names<T>());
    }

    /// <summary>The name that <paramref name="value"/> has in the database and on the wire.</summary>
    public static string NameOf<T>(T value)
        where T : struct, Enum => JsonNamingPolicy.SnakeCaseLower.ConvertName(value.ToString());

    /// <summary>The value of that name; null when there is none.</summary>
    public static T? Named<T>(string name)
        where T : struct, Enum
    {
        foreach (var value in Enum.GetValues<T>())
        {
            if (NameOf(value) == name)
            {
                return value;
            }
        }

        return null;
    }

    private static ValueConverter<T, string> Names<T>()
        where T : struct, Enum => new(value => NameOf(value), name => Known<T>(name));

    private static T Known<T>(string name)
        where T : struct, Enum =>
        Named<T>(name) ?? throw new InvalidOperationException($"The database holds '{name}', which is no {typeof(T).Name}.");

    private static string Write<T>(T? value) => JsonSerializer.Serialize(value, PeftJson.Options);

    private static T Read<T>(string json) => JsonSerializer.Deserialize<T>(json, PeftJson.Options)!;
}
